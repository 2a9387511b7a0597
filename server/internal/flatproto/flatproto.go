// Package flatproto reads and writes the protobuf of the hot methods' messages, alone, in
// a batch and in a pipeline (https://protobuf.dev/programming-guides/encoding/). It is a
// shortcut for package proto, which takes several times as long: whatever is unusual it
// declines, for proto to read or to refuse. What it does read and write, it reads and
// writes as proto does.
//
// Functions are pure and safe for concurrent use. What was read shares no memory with
// what it was read from.
package flatproto

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// raw is one field as it is encoded.
type raw struct {
	number  int
	wire    protowire.Type // VarintType or BytesType
	varint  uint64
	payload []byte
}

// take cuts the first field off b, which is not empty. It declines what the hot messages
// do not have: numbers from 16 on, and other wire types.
func take(b []byte) (f raw, rest []byte, ok bool) {
	tag := b[0]
	f.number, f.wire = int(tag>>3), protowire.Type(tag&7)
	if tag >= 0x80 || f.number == 0 {
		return f, nil, false
	}
	value, n := protowire.ConsumeVarint(b[1:])
	if n < 0 {
		return f, nil, false
	}
	rest = b[1+n:]
	switch f.wire {
	case protowire.VarintType:
		f.varint = value
		return f, rest, true
	case protowire.BytesType:
		if value > uint64(len(rest)) {
			return f, nil, false
		}
		f.payload = rest[:value]
		return f, rest[value:], true
	}
	return f, nil, false
}

// field reads one field of a message M. Of a field that comes twice the last one counts.
type field[M any] func(r *reader, m *M, f raw) bool

// read reads b into m, whose fields are numbered from 1.
func read[M any](r *reader, fields []field[M], b []byte, m *M) bool {
	for len(b) > 0 {
		f, rest, ok := take(b)
		if !ok || f.number > len(fields) || !fields[f.number-1](r, m, f) {
			return false
		}
		b = rest
	}
	return true
}

func text[M any](at func(*M) *string) field[M] {
	return func(r *reader, m *M, f raw) (ok bool) {
		*at(m), ok = r.text(f)
		return ok
	}
}

func content[M any](at func(*M) *[]byte) field[M] {
	return func(r *reader, m *M, f raw) bool {
		*at(m) = r.keep(f.payload)
		return f.wire == protowire.BytesType
	}
}

func number[M any](at func(*M) *uint32) field[M] {
	return func(_ *reader, m *M, f raw) bool {
		*at(m) = uint32(f.varint)
		return f.wire == protowire.VarintType
	}
}

func enum[M any, E ~int32](at func(*M) *E) field[M] {
	return func(_ *reader, m *M, f raw) bool {
		*at(m) = E(f.varint)
		return f.wire == protowire.VarintType
	}
}

// texts reads an entry of a map, which has one key and one value.
func texts[M any](at func(*M) *map[string]string) field[M] {
	return func(_ *reader, m *M, f raw) bool {
		var entry [2]string
		seen, b := 0, f.payload
		for len(b) > 0 {
			part, rest, ok := take(b)
			if !ok || part.number > len(entry) || seen&part.number != 0 {
				return false
			}
			if entry[part.number-1], ok = (*reader)(nil).text(part); !ok {
				return false
			}
			seen |= part.number
			b = rest
		}
		if *at(m) == nil {
			*at(m) = map[string]string{}
		}
		(*at(m))[entry[0]] = entry[1]
		return f.wire == protowire.BytesType && seen == 1|2
	}
}

// reader makes what the messages of a batch hold, with few allocations. A nil one is for
// a message alone.
type reader struct {
	room     []byte     // for contents
	names    [16]string // the last text of each number: names are mostly those of the operation before
	encrypts []encryption
	decrypts []decryption
}

func (r *reader) text(f raw) (string, bool) {
	if f.wire != protowire.BytesType || !utf8.Valid(f.payload) {
		return "", false
	}
	if r == nil {
		return string(f.payload), true
	}
	if r.names[f.number] != string(f.payload) {
		r.names[f.number] = string(f.payload)
	}
	return r.names[f.number], true
}

// keep copies a content, so that its user may change it and no other.
func (r *reader) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if r == nil {
		return append([]byte(nil), b...)
	}
	start := len(r.room)
	r.room = append(r.room, b...)
	return r.room[start:len(r.room):len(r.room)]
}
