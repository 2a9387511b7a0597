package token

import (
	"time"

	"golang.org/x/crypto/cryptobyte"
)

const (
	version = 1
	// maxTime is the end of the year 9999, the last that RFC 3339 can write.
	maxTime = 253402300799
)

// Flags of a statement; a link has only the first.
const (
	flagRenewable = 1 << iota
	flagOnce
)

// marshal returns the payload of a statement that check has passed.
func (s Statement) marshal() ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 256))
	b.AddUint8(version)
	b.AddBytes(s.Installation[:])
	b.AddUint32(s.Epoch)
	b.AddBytes(s.ID[:])
	b.AddBytes(s.Origin[:])
	b.AddUint64(uint64(s.Issued.Unix()))
	b.AddUint64(uint64(s.Expires.Unix()))
	b.AddUint8(flag(s.Renewable, flagRenewable) | flag(s.Once, flagOnce))
	s.Bearer.add(b)
	b.AddUint8(uint8(len(s.Ancestors)))
	for _, link := range s.Ancestors {
		b.AddBytes(link.ID[:])
		b.AddUint64(uint64(link.Issued.Unix()))
		b.AddUint8(flag(link.Renewable, flagRenewable))
		link.Bearer.add(b)
	}
	return b.Bytes()
}

func flag(set bool, bit uint8) uint8 {
	if set {
		return bit
	}
	return 0
}

func (b Bearer) add(to *cryptobyte.Builder) {
	addText(to, b.Principal)
	for _, list := range [][]string{b.Groups, b.Actions, b.Resources} {
		to.AddUint8(uint8(len(list)))
		for _, text := range list {
			addText(to, text)
		}
	}
}

func addText(b *cryptobyte.Builder, text string) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
}

// unmarshal reads a payload; it is left to check whether the fields are within bounds.
func unmarshal(payload []byte) (s Statement, ok bool) {
	in := cryptobyte.String(payload)
	var v, flags, ancestors uint8
	ok = in.ReadUint8(&v) && v == version &&
		in.CopyBytes(s.Installation[:]) && in.ReadUint32(&s.Epoch) &&
		in.CopyBytes(s.ID[:]) && in.CopyBytes(s.Origin[:]) &&
		readTime(&in, &s.Issued) && readTime(&in, &s.Expires) &&
		in.ReadUint8(&flags) && flags&^(flagRenewable|flagOnce) == 0 &&
		s.Bearer.read(&in) && in.ReadUint8(&ancestors) && readAncestors(&in, &s, int(ancestors)) && in.Empty()
	s.Renewable, s.Once = flags&flagRenewable != 0, flags&flagOnce != 0
	return s, ok
}

func readAncestors(in *cryptobyte.String, s *Statement, n int) bool {
	for range n {
		var link Link
		var flags uint8
		if !in.CopyBytes(link.ID[:]) || !readTime(in, &link.Issued) || !in.ReadUint8(&flags) || flags&^flagRenewable != 0 || !link.Bearer.read(in) {
			return false
		}
		link.Renewable = flags != 0
		s.Ancestors = append(s.Ancestors, link)
	}
	return true
}

func (b *Bearer) read(in *cryptobyte.String) bool {
	return readText(in, &b.Principal) && readTexts(in, &b.Groups) && readTexts(in, &b.Actions) && readTexts(in, &b.Resources)
}

func readTexts(in *cryptobyte.String, list *[]string) bool {
	var n uint8
	if !in.ReadUint8(&n) {
		return false
	}
	for range n {
		var text string
		if !readText(in, &text) {
			return false
		}
		*list = append(*list, text)
	}
	return true
}

func readText(in *cryptobyte.String, text *string) bool {
	var field cryptobyte.String
	if !in.ReadUint8LengthPrefixed(&field) {
		return false
	}
	*text = string(field)
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
