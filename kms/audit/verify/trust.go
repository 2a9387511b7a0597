package verify

import (
	"errors"
	"path/filepath"

	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// trust reads the keys, the checkpoint and the kept checkpoint, and verifies who
// signed them.
func (v *verifier) trust() error {
	spans, breaks, err := v.keys()
	if err != nil {
		return err
	}
	note, err := layout.ReadIfThere(filepath.Join(v.dir, layout.Checkpoint))
	if err != nil {
		return err
	}
	if note == nil {
		return finding(Missing, 0, layout.Checkpoint, "there is no checkpoint, so no line is signed")
	}
	if v.signed, err = v.open(note, layout.Checkpoint, "the checkpoint", spans, breaks); err != nil {
		return err
	}
	v.report.Signed, v.report.Epoch = v.signed.Size, v.signed.Epoch
	if v.options.Checkpoint == nil {
		return nil
	}
	kept, err := v.open(v.options.Checkpoint, "", "the kept checkpoint", spans, breaks)
	if err != nil {
		return err
	}
	v.kept, v.report.Kept = &kept, kept.Size
	return nil
}

// keys returns which keys may sign what, beginning with the trusted one.
func (v *verifier) keys() ([]checkpoint.Span, []checkpoint.Break, error) {
	text, err := layout.ReadIfThere(filepath.Join(v.dir, layout.Keys))
	if err != nil {
		return nil, nil, err
	}
	if text == nil {
		return nil, nil, finding(Missing, 0, layout.Keys, "there are no keys")
	}
	succession, err := checkpoint.ParseSuccession(text)
	if err != nil {
		return nil, nil, finding(Malformed, 0, layout.Keys, "%v", err)
	}
	key := succession.First()
	if v.report.Trusted = v.options.Key != nil; v.report.Trusted {
		key = *v.options.Key
	}
	v.report.Key, v.report.Origin = key.String(), key.Name()
	if key.Name() != succession.Origin() {
		return nil, nil, finding(Foreign, 0, layout.Keys, "the keys are of %s, the trusted key is of %s", succession.Origin(), key.Name())
	}
	spans, breaks, err := succession.Trusted(key)
	if err != nil {
		return nil, nil, finding(WrongKey, 0, layout.Keys, "%v", err)
	}
	return spans, breaks, nil
}

// open opens a note that must be of this log.
func (v *verifier) open(note []byte, file, what string, spans []checkpoint.Span, breaks []checkpoint.Break) (checkpoint.Checkpoint, error) {
	c, err := checkpoint.Peek(note)
	if err != nil {
		return c, finding(Malformed, 0, file, "%s: %v", what, err)
	}
	if c.Origin != v.report.Origin {
		return c, finding(Foreign, 0, file, "%s is of %s, the log is %s", what, c.Origin, v.report.Origin)
	}
	opened, err := checkpoint.OpenTrusted(note, spans)
	if err == nil {
		return opened, nil
	}
	for _, b := range breaks {
		if _, byNew := checkpoint.Open(note, b.Key); byNew == nil {
			return c, finding(Broken, b.From, file, "%s is signed by %s, which no trusted key signed; the break was declared from entry %d on: %q. If that key is known to be right, trust it by name",
				what, b.Key, b.From, b.Reason)
		}
	}
	if errors.Is(err, checkpoint.ErrForm) {
		return c, finding(Malformed, 0, file, "%s: %v", what, err)
	}
	return c, finding(WrongKey, 0, file, "%s: %v", what, err)
}
