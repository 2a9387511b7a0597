// Package checkpoint says what an audit log was at a moment, in a form that
// others can verify: checkpoints (C2SP tlog-checkpoint) as signed notes (C2SP
// signed-note), the keys that sign them and how one key follows another, proofs
// that a line is in the log (C2SP tlog-proof), and cosignatures of witnesses
// (C2SP tlog-cosignature).
//
// The package keeps no state, reads no file and calls nobody but the Signer that
// it is given; everything may be used by many goroutines at once. What it parses
// may come from anywhere: all parsers are strict and bounded.
package checkpoint

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Errors, for errors.Is.
var (
	// ErrForm says that a text is not what it should be, byte for byte.
	ErrForm = errors.New("malformed")
	// ErrSignature says that nothing trusted signed it, or a signature is wrong.
	ErrSignature = errors.New("not signed by a trusted key")
	// ErrOrigin says that it is another log's.
	ErrOrigin = errors.New("of another log")
)

// MaxNote bounds a note, in bytes: a checkpoint with hundreds of cosignatures.
const MaxNote = 64 << 10

// Checkpoint is the state of a log at one size.
type Checkpoint struct {
	Origin string   // the log's name, such as keywright/0123456789abcdef0123456789abcdef
	Size   uint64   // number of lines, at most 2^63-1
	Root   [32]byte // RFC 6962 root of the first Size lines
	Epoch  uint64   // of the store's head record when it was signed
}

// extension names the line that carries the epoch.
const extension = "keywright-epoch "

// Text returns the body of the note: the origin, the size in decimal, the root
// in base64, and one extension line with the epoch, each line with its newline.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n%s%d\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), extension, c.Epoch)
}

// ParseText reads what Text writes, and nothing else: ErrForm.
func ParseText(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || lines[4] != "" {
		return Checkpoint{}, fmt.Errorf("%w: a checkpoint has 4 lines: origin, size, root, epoch", ErrForm)
	}
	c := Checkpoint{Origin: lines[0]}
	if err := checkName(c.Origin); err != nil {
		return Checkpoint{}, fmt.Errorf("origin: %w", err)
	}
	var err error
	if c.Size, err = parseSize(lines[1]); err != nil {
		return Checkpoint{}, err
	}
	if c.Root, err = parseHash(lines[2]); err != nil {
		return Checkpoint{}, err
	}
	epoch, ok := strings.CutPrefix(lines[3], extension)
	if !ok {
		return Checkpoint{}, fmt.Errorf("%w: the fourth line must begin with %q", ErrForm, extension)
	}
	if c.Epoch, err = parseNumber(epoch); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}

// Peek reads the checkpoint of a signed note without a look at who signed it.
func Peek(signed []byte) (Checkpoint, error) {
	n, err := openNote(signed)
	if err != nil && !errors.Is(err, ErrSignature) {
		return Checkpoint{}, err
	}
	return ParseText(n.Text)
}

// Signer signs with a private key that stays elsewhere, such as in an HSM: with
// Ed25519 (RFC 8032) 64 bytes over the message, with ECDSA the ASN.1 DER form
// over the message's SHA-256. It must be safe for concurrent use.
type Signer interface {
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// Sign returns the note of c, signed by the private key of key. The signature is
// verified before it is returned: ErrSignature says that signer has another key
// or does not work.
func Sign(ctx context.Context, c Checkpoint, key Key, signer Signer) ([]byte, error) {
	if _, err := ParseText(c.Text()); err != nil {
		return nil, err
	}
	return signNote(c.Text(), key.with(ctx, signer))
}

// Open returns the checkpoint of a note that one of keys signed. The key must be
// of the checkpoint's origin, and not a witness's. Signatures of other keys are
// ignored; a wrong one of a known key spoils the note. ErrForm, ErrSignature or
// ErrOrigin.
func Open(signed []byte, keys ...Key) (Checkpoint, error) {
	witness := func(k Key) bool { return k.algorithm == Cosignature }
	n, err := openNote(signed, slices.DeleteFunc(slices.Clone(keys), witness)...)
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := ParseText(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	for _, signature := range n.Sigs {
		if signature.Name == c.Origin {
			return c, nil
		}
	}
	return Checkpoint{}, fmt.Errorf("%w: the checkpoint says %s, its key is of %s", ErrOrigin, c.Origin, n.Sigs[0].Name)
}

// openNote returns a note's text and the signatures made by keys. With
// ErrSignature for want of any, the text is there all the same.
func openNote(signed []byte, keys ...Key) (*note.Note, error) {
	if len(signed) > MaxNote {
		return nil, fmt.Errorf("%w: a note of %d bytes, the limit is %d", ErrForm, len(signed), MaxNote)
	}
	known := make([]note.Verifier, 0, len(keys))
	for i, key := range keys {
		if !slices.ContainsFunc(keys[:i], key.Equal) { // twice would be ambiguous
			known = append(known, key)
		}
	}
	n, err := note.Open(signed, note.VerifierList(known...))
	unverified, nobody := errors.AsType[*note.UnverifiedNoteError](err)
	if nobody {
		n, err = unverified.Note, fmt.Errorf("%w; %s", ErrSignature, signatories(unverified.Note))
	}
	if invalid, ok := errors.AsType[*note.InvalidSignatureError](err); ok {
		return nil, fmt.Errorf("%w: the signature of %s is wrong", ErrSignature, invalid.Name)
	}
	if err != nil && !nobody || !strictSignatures(n) {
		return nil, fmt.Errorf("%w: not a signed note", ErrForm)
	}
	return n, err
}

// strictSignatures refuses a second spelling of the same signature, which
// package note lets pass.
func strictSignatures(n *note.Note) bool {
	return !slices.ContainsFunc(slices.Concat(n.Sigs, n.UnverifiedSigs), func(s note.Signature) bool {
		_, err := base64.StdEncoding.Strict().DecodeString(s.Base64)
		return err != nil || strings.Contains(s.Base64, "\r")
	})
}

// signatories names who signed a note that nobody trusted did.
func signatories(n *note.Note) string {
	names := make([]string, 0, len(n.UnverifiedSigs))
	for _, s := range n.UnverifiedSigs {
		names = append(names, fmt.Sprintf("%s+%08x", s.Name, s.Hash))
	}
	return "signed by " + strings.Join(names, ", ")
}

func signNote(text string, signers ...note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: text}, signers...)
}

// checkName accepts what signed-note accepts as a key's name, at most 255 bytes.
func checkName(name string) error {
	if len(name) > 255 || !validName(name) {
		return fmt.Errorf("%w: %q must have 1 to 255 bytes without spaces, control characters or plus", ErrForm, name)
	}
	return nil
}

// parseNumber reads a decimal number as strconv writes it.
func parseNumber(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, fmt.Errorf("%w: %q is not a decimal number", ErrForm, text)
	}
	return n, nil
}

// parseSize reads a number of lines.
func parseSize(text string) (uint64, error) {
	n, err := parseNumber(text)
	if err == nil && n > 1<<63-1 {
		return 0, fmt.Errorf("%w: size %d is more than 2^63-1", ErrForm, n)
	}
	return n, err
}

func parseHash(text string) (hash [32]byte, err error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(hash) || strings.ContainsAny(text, "\r\n") {
		return hash, fmt.Errorf("%w: %q is not a hash of 32 bytes in base64", ErrForm, text)
	}
	return [32]byte(raw), nil
}

// Continues verifies, by a consistency proof (RFC 6962, 2.1.2), that the log of c
// begins with that of an older checkpoint: ErrOrigin if they are of different logs,
// ErrProof if it does not.
func (c Checkpoint) Continues(older Checkpoint, proof [][32]byte) error {
	switch {
	case c.Origin != older.Origin:
		return fmt.Errorf("%w: it is of %s, the older one of %s", ErrOrigin, c.Origin, older.Origin)
	case c.Size < older.Size:
		return fmt.Errorf("%w: it covers %d lines, the older one %d", ErrProof, c.Size, older.Size)
	case c.Size == older.Size && c.Root == older.Root, older.Size == 0:
		return nil
	case c.Size == older.Size:
		return fmt.Errorf("%w: two histories of %d lines", ErrProof, c.Size)
	}
	hashes := make(tlog.TreeProof, len(proof))
	for i, hash := range proof {
		hashes[i] = tlog.Hash(hash)
	}
	if err := tlog.CheckTree(hashes, int64(c.Size), tlog.Hash(c.Root), int64(older.Size), tlog.Hash(older.Root)); err != nil {
		return fmt.Errorf("%w: its first %d lines are others", ErrProof, older.Size)
	}
	return nil
}
