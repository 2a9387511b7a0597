// Package verify tells from the files of an audit log, without the server, whether
// the lines are those that were signed, and at which entry they are not.
//
// It reads each file once, in order, and hashes on all processors; memory does not
// grow with the log. It changes nothing and needs no lock: of a log that is being
// written it verifies what was signed when it began. Calls are independent of each
// other and leave no goroutine behind.
package verify

import (
	"context"
	"fmt"

	"github.com/keywright/keywright/kms/audit/checkpoint"
)

// Options says what is known of the log from elsewhere. The zero value believes
// what the directory says of its own keys.
type Options struct {
	// Key is a key of the log that the caller trusts; nil is the first one that
	// the directory names.
	Key *checkpoint.Key
	// Checkpoint is a signed note that was kept elsewhere; nil is none.
	Checkpoint []byte
	// Progress is told now and then how many bytes of how many were read.
	Progress func(done, total int64)
}

// Report says what was verified.
type Report struct {
	Origin   string // name of the log
	Key      string // verifier key from which trust went out
	Trusted  bool   // Key was given by the caller
	First    uint64 // number of the oldest line that is there
	Lines    uint64 // lines read
	Signed   uint64 // size that the checkpoint covers
	Unsigned uint64 // lines behind it, which nothing protects
	Epoch    uint64 // of the store, in the checkpoint
	Kept     uint64 // size that the kept checkpoint covers; 0 without one
	Torn     int64  // bytes of an unfinished line at the end
	// TreeDiffers tells that the file of hashes is not that of the lines, though
	// these are right: it can be removed, the server makes it anew.
	TreeDiffers bool
	// TreeLacks tells that the file of hashes is missing, or has not all of the
	// lines that were signed: the server makes them anew at its next start.
	TreeLacks bool
}

// Kind says what is wrong.
type Kind string

// The kinds of findings.
const (
	Changed   Kind = "changed"   // a line is not the one that was signed
	Removed   Kind = "removed"   // a line is not there
	Inserted  Kind = "inserted"  // a line that does not belong there
	Reordered Kind = "reordered" // two lines changed places
	Missing   Kind = "missing"   // a file
	Cut       Kind = "cut"       // the end of the log
	Foreign   Kind = "foreign"   // a checkpoint of another log
	Older     Kind = "older"     // the checkpoint than the kept one
	Forked    Kind = "forked"    // the log has another history than the kept checkpoint
	WrongKey  Kind = "wrong-key" // no trusted key signed
	Broken    Kind = "broken"    // the succession of keys, by declaration
	Malformed Kind = "malformed" // a file that is no part of a log
)

// Finding is the first thing that is wrong with a log. It is an error.
type Finding struct {
	Kind   Kind
	Entry  uint64 // the first entry concerned
	File   string // name within the directory, if one is to blame
	Reason string
}

func (f *Finding) Error() string {
	text := fmt.Sprintf("entry %d: %s: %s", f.Entry, f.Kind, f.Reason)
	if f.File != "" {
		text += " (" + f.File + ")"
	}
	return text
}

func finding(kind Kind, entry uint64, file, format string, args ...any) *Finding {
	return &Finding{kind, entry, file, fmt.Sprintf(format, args...)}
}

// Dir verifies the log in a directory. The error is a *Finding if the log is not
// as it was signed, another if it could not be read. The report says how far
// it came.
func Dir(ctx context.Context, dir string, o Options) (Report, error) {
	v := &verifier{dir: dir, options: o}
	err := v.trust()
	if err == nil {
		err = v.lines(ctx)
	}
	if err == nil {
		err = v.judge()
	}
	return v.report, err
}

// verifier is one verification.
type verifier struct {
	dir     string
	options Options
	report  Report

	signed checkpoint.Checkpoint
	kept   *checkpoint.Checkpoint

	dropped  [32]byte            // root of the lines that were dropped
	roots    map[uint64][32]byte // computed, of the sizes that were signed
	differs  *uint64             // first line whose hash is not that in the tree
	mismatch *Finding            // of the form or order of the lines
}
