package verify

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// gap says what it means that a segment begins with line first where the one
// before ended with line next-1.
func gap(first, next uint64) *Finding {
	if first > next {
		return finding(Missing, next, layout.SegmentName(next), "the next file begins with entry %d: a file is missing, or the one before is cut", first)
	}
	return finding(Inserted, first, layout.SegmentName(first), "the file begins with entry %d, which the one before has already", first)
}

// classify says what it means that the line at offset is not line want. The line
// behind it shows whether one was changed, removed, inserted or moved.
func classify(path string, offset int64, want uint64, problem string) (*Finding, error) {
	file := filepath.Base(path)
	if problem != "" {
		return finding(Changed, want, file, "%s", problem), nil
	}
	got, _, err := headAt(path, offset, 0)
	if err != nil {
		return nil, err
	}
	next, isThere, err := headAt(path, offset, 1)
	switch {
	case err != nil:
		return nil, err
	case isThere && next == want+1:
		return finding(Changed, want, file, "the line says that it is entry %d", got), nil
	case got < want:
		return finding(Inserted, want, file, "a line that says that it is entry %d stands in its place", got), nil
	case isThere && next == want:
		return finding(Reordered, want, file, "entry %d stands before it", got), nil
	}
	return finding(Removed, want, file, "entry %d stands in its place", got), nil
}

// headAt returns the number of the line that comes so many lines behind offset.
func headAt(path string, offset int64, behind int) (number uint64, ok bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	r := bufio.NewReader(io.NewSectionReader(f, offset, 2*layout.MaxLineBytes))
	for ; behind > 0; behind-- {
		for err = bufio.ErrBufferFull; errors.Is(err, bufio.ErrBufferFull); {
			_, err = r.ReadSlice('\n')
		}
		if err != nil {
			return 0, false, ignoreEOF(err)
		}
	}
	head, err := r.Peek(layout.HeadBytes)
	if end := bytes.IndexByte(head, '\n'); end >= 0 {
		head = head[:end]
	}
	number, ok = layout.Head(head)
	return number, ok, ignoreEOF(err)
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// judge compares what was read with what was signed.
func (v *verifier) judge() error {
	size := v.report.First + v.report.Lines
	if v.mismatch != nil {
		if v.differs != nil && *v.differs < v.mismatch.Entry {
			return v.changed(*v.differs)
		}
		return v.mismatch
	}
	if size < v.signed.Size {
		return v.short(size, v.signed.Size, "the checkpoint")
	}
	if v.roots[v.signed.Size] != v.signed.Root {
		return v.unlike()
	}
	v.report.TreeDiffers = v.report.TreeDiffers && (v.differs == nil || *v.differs < v.signed.Size)
	if v.kept != nil {
		return v.judgeKept(size)
	}
	return nil
}

// short is the finding that lines at the end are missing.
func (v *verifier) short(size, want uint64, what string) *Finding {
	if v.differs != nil {
		return v.changed(*v.differs)
	}
	return finding(Cut, size, "", "the log ends with %d entries, %s covers %d", size, what, want)
}

func (v *verifier) changed(entry uint64) *Finding {
	return finding(Changed, entry, "", "the line is not the one whose hash is in the tree, and the log is not the one that was signed")
}

// unlike is the finding that the root is not the signed one.
func (v *verifier) unlike() *Finding {
	if v.differs != nil && *v.differs < v.signed.Size {
		return v.changed(*v.differs)
	}
	from := uint64(0)
	if v.kept != nil && v.kept.Size < v.signed.Size && v.roots[v.kept.Size] == v.kept.Root {
		from = v.kept.Size
	}
	return finding(Changed, from, "", "one or more of the entries %d to %d are not those that were signed; lines and hashes were changed together, so which cannot be told",
		from, v.signed.Size-1)
}

// judgeKept compares the log with the checkpoint that was kept elsewhere.
func (v *verifier) judgeKept(size uint64) error {
	if size < v.kept.Size {
		return finding(Cut, size, "", "the log ends with %d entries, the kept checkpoint covers %d", size, v.kept.Size)
	}
	follows, err := v.followsKept()
	if err != nil {
		return err
	}
	if !follows {
		entry := uint64(0)
		if v.differs != nil && *v.differs < v.kept.Size {
			entry = *v.differs
		}
		return finding(Forked, entry, "", "the first %d entries are not those of the kept checkpoint: the log has another history", v.kept.Size)
	}
	if v.signed.Size < v.kept.Size {
		return finding(Older, v.signed.Size, layout.Checkpoint, "the checkpoint covers %d entries, the kept one %d", v.signed.Size, v.kept.Size)
	}
	return nil
}

// followsKept compares roots, or proves by the hashes of dropped lines that those
// begin with the kept ones. They are as good as the signed root to which they led.
func (v *verifier) followsKept() (bool, error) {
	if v.kept.Size >= v.report.First {
		return v.roots[v.kept.Size] == v.kept.Root, nil
	}
	if v.kept.Size == 0 {
		return true, nil
	}
	h, err := openHashes(filepath.Join(v.dir, layout.Tree))
	if err != nil {
		return false, err
	}
	defer h.close()
	proof, err := tlog.ProveTree(int64(v.report.First), int64(v.kept.Size), h)
	if err != nil {
		return false, err
	}
	return tlog.CheckTree(proof, int64(v.report.First), v.dropped, int64(v.kept.Size), v.kept.Root) == nil, nil
}
