package checkpoint

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrProof says that a proof does not lead from the line to the signed root.
var ErrProof = errors.New("proof does not hold")

// MaxProof bounds a proof as text, in bytes.
const MaxProof = 32 << 20

// Proof says that a line is in a log (C2SP tlog-proof v1).
type Proof struct {
	Extra  []byte     // what the maker adds for convenience, such as the line; proves nothing
	Index  uint64     // number of the line
	Hashes [][32]byte // from the leaf's sibling to the root's child, at most 63
	Note   []byte     // signed checkpoint
}

const proofHeader = "c2sp.org/tlog-proof@v1"

// Text returns the proof as text.
func (p Proof) Text() []byte {
	text := []byte(proofHeader + "\n")
	if len(p.Extra) > 0 {
		text = fmt.Appendf(text, "extra %s\n", base64.StdEncoding.EncodeToString(p.Extra))
	}
	text = fmt.Appendf(text, "index %d\n", p.Index)
	for _, hash := range p.Hashes {
		text = fmt.Appendf(text, "%s\n", base64.StdEncoding.EncodeToString(hash[:]))
	}
	return append(append(text, '\n'), p.Note...)
}

// ParseProof reads what Text writes: ErrForm. The signatures and the hashes are
// looked at by Verify alone.
func ParseProof(text []byte) (Proof, error) {
	if len(text) > MaxProof {
		return Proof{}, fmt.Errorf("%w: a proof of %d bytes, the limit is %d", ErrForm, len(text), MaxProof)
	}
	head, signed, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 2 || lines[0] != proofHeader {
		return Proof{}, fmt.Errorf("%w: a proof begins with %s", ErrForm, proofHeader)
	}
	p, lines, err := parseExtra(lines[1:])
	if err != nil {
		return Proof{}, err
	}
	if len(lines) == 0 || len(lines) > 64 || !strings.HasPrefix(lines[0], "index ") {
		return Proof{}, fmt.Errorf("%w: want the line's index and at most 63 hashes", ErrForm)
	}
	if p.Index, err = parseSize(strings.TrimPrefix(lines[0], "index ")); err != nil {
		return Proof{}, err
	}
	for _, line := range lines[1:] {
		hash, err := parseHash(line)
		if err != nil {
			return Proof{}, err
		}
		p.Hashes = append(p.Hashes, hash)
	}
	p.Note = []byte(signed)
	_, err = Peek(p.Note)
	return p, err
}

func parseExtra(lines []string) (p Proof, rest []string, err error) {
	encoded, ok := strings.CutPrefix(lines[0], "extra ")
	if !ok {
		return p, lines, nil
	}
	p.Extra, err = base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(p.Extra) == 0 || strings.Contains(encoded, "\r") {
		return p, nil, fmt.Errorf("%w: extra is not base64", ErrForm)
	}
	return p, lines[1:], nil
}

// Verify checks that line, without its newline, is line p.Index of a log whose
// checkpoint one of keys signed, and returns that checkpoint. Errors are those of
// Open, and ErrProof.
func (p Proof) Verify(line []byte, keys ...Key) (Checkpoint, error) {
	c, err := Open(p.Note, keys...)
	if err != nil {
		return Checkpoint{}, err
	}
	hashes := make(tlog.RecordProof, len(p.Hashes))
	for i, hash := range p.Hashes {
		hashes[i] = hash
	}
	if err := tlog.CheckRecord(hashes, int64(c.Size), c.Root, int64(p.Index), tlog.RecordHash(line)); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: line %d is not this one in the log of %d lines", ErrProof, p.Index, c.Size)
	}
	return c, nil
}
