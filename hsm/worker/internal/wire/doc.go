// Package wire is the format in which keywrightd and its HSM worker speak over a
// private stream socket, and nothing else: it knows no PKCS#11 and no keys.
//
// A stream is a sequence of frames:
//
//	bytes 0..3   length of what follows, big endian, 10 to MaxFrame
//	byte  4      version of the format, 0x01
//	byte  5      kind of the frame
//	bytes 6..13  number of the call, big endian; 0 outside of calls
//	rest         body, by kind
//
// A body is a sequence of values: integers of fixed size, big endian, and strings
// of bytes behind their length in four bytes. There is no other encoding of the
// same values, and nothing may stand behind the last one.
//
// Bodies hold secrets. A Sender overwrites what it has written, a Reader what it
// has handed out.
package wire
