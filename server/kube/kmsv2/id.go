package kmsv2

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"regexp"
)

// The head of a native ciphertext (docs/format.md).
const (
	formatNative = 0x01
	headBytes    = 1 + 8 + 4 // format, key id, version
)

// KeyID names the key and the version that made a native ciphertext, such as
// id:8c1f0a55d3b2e977:3; ok is false for other bytes. Keywright uses no key id and no
// version a second time, so the same name always stands for the same key.
func KeyID(ciphertext []byte) (id string, ok bool) {
	if len(ciphertext) <= headBytes || ciphertext[0] != formatNative {
		return "", false
	}
	return fmt.Sprintf("id:%x:%d", ciphertext[1:9], binary.BigEndian.Uint32(ciphertext[9:headBytes])), true
}

// requestID is the form of the ids that Keywright takes over from callers.
var requestID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// RequestID is what an operation is called in Keywright's audit log: by the uid that
// the API server gave it and logs itself, "" if that has another form.
func RequestID(uid string) string {
	if requestID.MatchString(uid) {
		return uid
	}
	return ""
}

// StatusRequestID makes an id for what Status does, so that it can be told from the
// rest in the audit log.
func StatusRequestID() string {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], rand.Uint64())
	return "kube-status-" + hex.EncodeToString(id[:])
}
