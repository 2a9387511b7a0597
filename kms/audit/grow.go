package audit

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/keywright/keywright/kms/audit/internal/layout"
	"github.com/keywright/keywright/kms/audit/tree"
)

// regrow makes the tree have exactly the lines before the last segment, which
// the caller reads anyway: hashes of later ones are forgotten, since they were
// never synced, and those that are missing are made anew from the lines.
func (l *Log) regrow(last uint64) error {
	if l.tree.Size() >= last {
		return l.tree.Cut(last)
	}
	if have, first := l.tree.Size(), l.segments[0].first; have < first {
		return &CorruptError{File: l.path(layout.Tree), Reason: fmt.Sprintf(
			"has the hashes of %d lines, but the lines before %d are gone; restore it, or those lines, from a copy", have, first)}
	}
	l.options.Logger.Warn("audit log: hashes are missing and are made anew", "dir", l.dir, "from", l.tree.Size(), "to", last)
	for _, s := range l.segments[:len(l.segments)-1] {
		if err := l.regrowFrom(s); err != nil {
			return err
		}
	}
	if err := l.tree.Flush(); err != nil {
		return fmt.Errorf("audit log: hashes: %w", err)
	}
	return l.tree.Sync()
}

// regrowFrom adds those lines of a segment that the tree lacks.
func (l *Log) regrowFrom(s segment) error {
	file, err := os.Open(l.path(s.name()))
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	defer file.Close()
	g := newGrower(l.tree)
	r := newLineReader(file, s, 0, s.first)
	for {
		err := r.skip()
		if errors.Is(err, io.EOF) {
			return g.flush()
		}
		if err == nil && r.next > l.tree.Size()+g.lines {
			err = g.add(r.line)
		}
		if err != nil {
			return err
		}
	}
}

// grower adds lines to a tree, many at a time.
type grower struct {
	tree  *tree.File
	block []byte
	lines uint64 // in block
}

func newGrower(t *tree.File) *grower { return &grower{tree: t, block: make([]byte, 1, 1<<20)} }

func (g *grower) add(line []byte) error {
	g.block = append(append(g.block, line...), '\n')
	if g.lines++; len(g.block) < 1<<20 {
		return nil
	}
	return g.flush()
}

func (g *grower) flush() error {
	err := g.tree.Extend(g.block)
	g.block, g.lines = g.block[:1], 0
	if err != nil {
		return fmt.Errorf("audit log: hashes: %w", err)
	}
	return nil
}
