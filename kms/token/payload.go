package token

import (
	"time"

	"golang.org/x/crypto/cryptobyte"
)

const (
	version = 1
	// maxTime is the end of the year 9999, the last that RFC 3339 can write.
	maxTime = 253402300799
	// maxBody is the largest payload with its signature, in bytes.
	maxBody = 1 + 16 + 4 + 16 + 16 + 8 + 8 + (1 + MaxName) + 1 + MaxGroups*(1+MaxName) + 64
)

// marshal returns the payload of a statement that check has passed.
func (s Statement) marshal() ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, maxBody))
	b.AddUint8(version)
	b.AddBytes(s.Installation[:])
	b.AddUint32(s.Epoch)
	b.AddBytes(s.ID[:])
	b.AddBytes(s.Parent[:])
	b.AddUint64(uint64(s.Issued.Unix()))
	b.AddUint64(uint64(s.Expires.Unix()))
	addName(b, s.Principal)
	b.AddUint8(uint8(len(s.Groups)))
	for _, group := range s.Groups {
		addName(b, group)
	}
	return b.Bytes()
}

func addName(b *cryptobyte.Builder, name string) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
}

// unmarshal reads a payload; it is left to check whether the fields are within bounds.
func unmarshal(payload []byte) (s Statement, ok bool) {
	in := cryptobyte.String(payload)
	var v, groups uint8
	ok = in.ReadUint8(&v) && v == version &&
		in.CopyBytes(s.Installation[:]) && in.ReadUint32(&s.Epoch) &&
		in.CopyBytes(s.ID[:]) && in.CopyBytes(s.Parent[:]) &&
		readTime(&in, &s.Issued) && readTime(&in, &s.Expires) &&
		readName(&in, &s.Principal) && in.ReadUint8(&groups) && readGroups(&in, &s, int(groups)) && in.Empty()
	return s, ok
}

func readGroups(in *cryptobyte.String, s *Statement, n int) bool {
	for range n {
		var group string
		if !readName(in, &group) {
			return false
		}
		s.Groups = append(s.Groups, group)
	}
	return true
}

func readName(in *cryptobyte.String, name *string) bool {
	var field cryptobyte.String
	if !in.ReadUint8LengthPrefixed(&field) {
		return false
	}
	*name = string(field)
	return true
}

func readTime(in *cryptobyte.String, at *time.Time) bool {
	var seconds uint64
	if !in.ReadUint64(&seconds) || seconds > maxTime {
		return false
	}
	*at = time.Unix(int64(seconds), 0).UTC()
	return true
}
