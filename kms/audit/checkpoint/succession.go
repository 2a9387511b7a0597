package checkpoint

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxKeys bounds a succession: monthly keys for eighty years.
const MaxKeys = 1000

// Span says which checkpoints a key may sign: those of sizes From to To, both
// included. At the size where one key follows another both may have signed.
type Span struct {
	Key      Key
	From, To uint64
}

// Break is a key that its forerunner did not sign: whoever trusts the one has
// no reason to trust the other but the one given.
type Break struct {
	Key    Key
	From   uint64
	Reason string
}

// Succession is the history of a log's keys, oldest first. As text it is one
// signed note per key, with an empty line between; a note has the lines
//
//	keywright-audit-key/v1
//	origin <origin>
//	from <size of the log from which the key signs>
//	key <verifier key>
//	break <reason>
//
// where the last is there only if the succession is broken. The key signs its own
// note, and the key before it signs too, unless there is none or it is broken.
type Succession struct {
	members []member
	text    string
}

type member struct {
	key    Key
	from   uint64
	reason string // of a break
	broken bool   // the succession is broken here
}

const successionHeader = "keywright-audit-key/v1"

func (m member) text() string {
	text := fmt.Sprintf("%s\norigin %s\nfrom %d\nkey %s\n", successionHeader, m.key.Name(), m.from, m.key)
	if m.reason != "" {
		text += "break " + m.reason + "\n"
	}
	return text
}

// BeginSuccession returns the succession of a log's first key.
func BeginSuccession(ctx context.Context, key Key, signer Signer) (Succession, error) {
	return Succession{}.append(member{key: key}, key.with(ctx, signer))
}

// Follow appends a key that signs from the given size of the log on. Both the
// key before it and itself sign that.
func (s Succession) Follow(ctx context.Context, from uint64, before Signer, key Key, signer Signer) (Succession, error) {
	return s.append(member{key: key, from: from}, s.Current().with(ctx, before), key.with(ctx, signer))
}

// Break appends a key that the key before it cannot sign, such as because it is
// lost. The reason, 1 to 200 printable characters, is for whoever verifies.
func (s Succession) Break(ctx context.Context, from uint64, reason string, key Key, signer Signer) (Succession, error) {
	if reason == "" {
		return Succession{}, fmt.Errorf("%w: a break needs a reason", ErrForm)
	}
	return s.append(member{key: key, from: from, reason: reason}, key.with(ctx, signer))
}

func (s Succession) append(m member, signers ...note.Signer) (Succession, error) {
	if m.key.algorithm == Cosignature {
		return Succession{}, fmt.Errorf("%w: %s is a witness's key, which signs no log", ErrForm, m.key)
	}
	signed, err := signNote(m.text(), signers...)
	if err != nil {
		return Succession{}, err
	}
	text := string(signed)
	if s.text != "" {
		text = s.text + "\n" + text
	}
	return ParseSuccession([]byte(text))
}

// ParseSuccession reads a succession and verifies all its signatures. ErrForm,
// ErrSignature or ErrOrigin.
func ParseSuccession(text []byte) (Succession, error) {
	body, ended := strings.CutSuffix(string(text), "\n")
	parts := strings.Split(body, "\n\n") // text, signatures, text, signatures, ...
	if !ended || len(parts)%2 != 0 || len(parts) > 2*MaxKeys {
		return Succession{}, fmt.Errorf("%w: a succession of keys is 1 to %d signed notes", ErrForm, MaxKeys)
	}
	s := Succession{text: string(text)}
	for pair := range slices.Chunk(parts, 2) {
		m, err := parseMember(pair[0] + "\n")
		if err == nil {
			err = s.admit(m, []byte(pair[0]+"\n\n"+pair[1]+"\n"))
		}
		if err != nil {
			return Succession{}, fmt.Errorf("key %d of the succession: %w", len(s.members)+1, err)
		}
		s.members = append(s.members, m)
	}
	return s, nil
}

func parseMember(text string) (m member, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 && len(lines) != 6 || lines[0] != successionHeader {
		return m, fmt.Errorf("%w: want %s with origin, from, key, and break if there is one", ErrForm, successionHeader)
	}
	if m.from, err = parseSize(strings.TrimPrefix(lines[2], "from ")); err != nil {
		return m, err
	}
	if m.key, err = ParseKey(strings.TrimPrefix(lines[3], "key ")); err != nil {
		return m, err
	}
	if m.broken = len(lines) == 6; m.broken {
		m.reason = strings.TrimPrefix(lines[4], "break ")
	}
	if len(m.reason) > 200 || m.text() != text { // also every prefix, and the origin
		return m, fmt.Errorf("%w: not the lines of a key and its origin", ErrForm)
	}
	return m, nil
}

// admit checks that m may come next and that signed has the signatures it needs.
func (s Succession) admit(m member, signed []byte) error {
	signers := []Key{m.key}
	switch {
	case m.key.algorithm == Cosignature:
		return fmt.Errorf("%w: %s is a witness's key, which signs no log", ErrForm, m.key)
	case len(s.members) == 0 && (m.from != 0 || m.broken):
		return fmt.Errorf("%w: the first key signs from 0", ErrForm)
	case len(s.members) == 0:
	case m.key.Name() != s.Origin():
		return fmt.Errorf("%w: the key is of %s, those before it of %s", ErrOrigin, m.key.Name(), s.Origin())
	case m.from < s.last().from:
		return fmt.Errorf("%w: it signs from %d, the key before it from %d", ErrForm, m.from, s.last().from)
	case slices.ContainsFunc(s.members, func(old member) bool { return old.key.Equal(m.key) }):
		return fmt.Errorf("%w: %s was there before", ErrForm, m.key)
	case !m.broken:
		signers = append(signers, s.Current())
	}
	for _, signer := range signers {
		if _, err := openNote(signed, signer); err != nil {
			return fmt.Errorf("by %s: %w", signer, err)
		}
	}
	return nil
}

func (s Succession) last() member { return s.members[len(s.members)-1] }

// Text returns the succession as ParseSuccession reads it.
func (s Succession) Text() []byte { return []byte(s.text) }

// Origin returns the log's name.
func (s Succession) Origin() string { return s.members[0].key.Name() }

// Current returns the newest key.
func (s Succession) Current() Key { return s.last().key }

// Full reports whether no key can be appended any more.
func (s Succession) Full() bool { return len(s.members) >= MaxKeys }

// First returns the oldest key.
func (s Succession) First() Key { return s.members[0].key }

// Trusted returns what follows from trust in one key: that key and its
// successors up to the first break, with what each may sign, and the breaks from
// there on, whose keys are not trusted. ErrSignature: the key is not in the
// succession, so it is the wrong key or another log's succession.
func (s Succession) Trusted(from Key) (spans []Span, breaks []Break, err error) {
	start := slices.IndexFunc(s.members, func(m member) bool { return m.key.Equal(from) })
	if start < 0 {
		return nil, nil, fmt.Errorf("%w: %s is not among the %d keys of %s, the newest of which is %s",
			ErrSignature, from, len(s.members), s.Origin(), s.Current())
	}
	for i, m := range s.members[start:] {
		if m.broken && i > 0 {
			breaks = append(breaks, Break{m.key, m.from, m.reason})
		}
		if len(breaks) > 0 {
			continue
		}
		if i > 0 {
			spans[i-1].To = m.from
		}
		spans = append(spans, Span{m.key, m.from, math.MaxInt64})
	}
	if len(breaks) > 0 {
		spans[len(spans)-1].To = breaks[0].From
	}
	return spans, breaks, nil
}

// OpenTrusted is Open with the keys that may sign a checkpoint of its size.
func OpenTrusted(signed []byte, spans []Span) (Checkpoint, error) {
	c, err := Peek(signed)
	if err != nil {
		return Checkpoint{}, err
	}
	var keys []Key
	for _, span := range spans {
		if span.From <= c.Size && c.Size <= span.To {
			keys = append(keys, span.Key)
		}
	}
	return Open(signed, keys...)
}
