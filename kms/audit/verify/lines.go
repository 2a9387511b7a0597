package verify

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/keywright/keywright/kms/audit/internal/layout"
	"github.com/keywright/keywright/kms/audit/tree"
)

// lines reads all lines, compares their numbers and hashes with the tree's, and
// computes the roots of the sizes that were signed.
func (v *verifier) lines(ctx context.Context) error {
	segments, err := v.segments()
	if err != nil {
		return err
	}
	hashes, err := openHashes(filepath.Join(v.dir, layout.Tree))
	if err != nil {
		return err
	}
	defer hashes.close()
	v.report.TreeLacks = hashes.lines < v.signed.Size
	frontier, err := v.begin(hashes)
	if err != nil {
		return err
	}
	w := &walk{verifier: v, hashes: hashes, frontier: frontier}
	w.mark()
	if err := read(ctx, v.dir, segments, v.options.Progress, w.take); err != nil {
		return err
	}
	v.report.Lines = w.frontier.Size() - v.report.First
	v.report.Unsigned = w.frontier.Size() - min(w.frontier.Size(), v.signed.Size)
	return nil
}

// segments lists the files from the beginning of the log on. What lies before it
// was dropped, though a crash may have left it.
func (v *verifier) segments() ([]layout.Segment, error) {
	first, err := layout.ReadFirst(v.dir)
	if err != nil {
		return nil, malformed(err)
	}
	v.report.First = first
	segments, err := layout.Segments(v.dir)
	if err != nil {
		return nil, malformed(err)
	}
	for len(segments) > 1 && segments[1].First <= first {
		segments = segments[1:]
	}
	if first > v.signed.Size {
		return nil, finding(Removed, v.signed.Size, layout.First, "the log begins with entry %d, but the checkpoint covers only %d", first, v.signed.Size)
	}
	return segments, nil
}

// malformed makes a finding of what is no part of a log.
func malformed(err error) error {
	if corrupt, ok := errors.AsType[*layout.CorruptError](err); ok {
		return finding(Malformed, 0, filepath.Base(corrupt.File), "%s", corrupt.Reason)
	}
	return err
}

// begin returns the frontier of the lines that were dropped. Whether their
// hashes are right shows in the root.
func (v *verifier) begin(hashes *hashes) (tree.Frontier, error) {
	first := v.report.First
	if first > hashes.lines {
		return tree.Frontier{}, finding(Missing, 0, layout.Tree, "the lines before entry %d were dropped, and the hashes of %d of them are missing", first, first-hashes.lines)
	}
	frontier, err := tree.FrontierAt(first, hashes)
	v.dropped = frontier.Root()
	return frontier, err
}

// hashes reads the file of hashes.
type hashes struct {
	file  *os.File // nil if there is none
	lines uint64
}

func openHashes(path string) (*hashes, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return &hashes{}, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &hashes{file, tree.Lines(info.Size() / tlog.HashSize)}, nil
}

func (h *hashes) close() {
	if h.file != nil {
		_ = h.file.Close()
	}
}

// ReadHashes implements [tlog.HashReader].
func (h *hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if _, err := h.file.ReadAt(found[i][:], index*tlog.HashSize); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// stored fills room with the stored hashes from index on, as far as there are any.
func (h *hashes) stored(room []byte, index int64) []byte {
	if h.file == nil {
		return nil
	}
	n, _ := h.file.ReadAt(room, index*tlog.HashSize)
	return room[:n-n%tlog.HashSize]
}

// walk goes along the lines in order.
type walk struct {
	*verifier
	hashes   *hashes
	frontier tree.Frontier
	stored   []byte // of the lines of a piece
	room     []byte
	next     uint64 // the size whose root is wanted next
}

// mark notes the root if its size is wanted, and looks for the next such size.
func (w *walk) mark() {
	size := w.frontier.Size()
	wanted := []uint64{w.signed.Size}
	if w.kept != nil {
		wanted = append(wanted, w.kept.Size)
	}
	w.next = 1<<64 - 1
	for _, want := range wanted {
		if want == size {
			if w.roots == nil {
				w.roots = make(map[uint64][32]byte)
			}
			w.roots[size] = w.frontier.Root()
		}
		if want > size {
			w.next = min(w.next, want)
		}
	}
}

// take adds a piece to the tree; false ends the walk.
func (w *walk) take(p *piece) (goOn bool, err error) {
	if size := w.frontier.Size(); p.begins && p.segment.First != size {
		w.mismatch = gap(p.segment.First, size)
		return false, nil
	}
	index := tlog.StoredHashCount(int64(w.frontier.Size()))
	w.stored = w.stored[:0]
	for i, leaf := range p.leaves {
		if p.numbers[i] != w.frontier.Size() {
			return w.stopAt(p, i, index)
		}
		w.compareLater(leaf)
	}
	w.compare(index)
	if p.problem != "" {
		return w.stopAt(p, len(p.leaves), -1)
	}
	if p.torn > 0 && (!p.last || w.frontier.Size() < w.signed.Size) {
		w.mismatch = finding(Cut, w.frontier.Size(), p.name(), "the line does not end")
		return false, nil
	}
	w.report.Torn = p.torn
	return true, nil
}

func (w *walk) compareLater(leaf tree.Hash) {
	w.stored = w.frontier.Push(w.stored, leaf)
	if w.frontier.Size() == w.next {
		w.mark()
	}
}

// stopAt ends the walk at line i of a piece.
func (w *walk) stopAt(p *piece, i int, index int64) (bool, error) {
	if index >= 0 {
		w.compare(index)
	}
	var err error
	w.mismatch, err = classify(filepath.Join(w.dir, p.name()), p.offset+p.starts[i], w.frontier.Size(), p.problem)
	return false, err
}

// compare looks for the first line whose hash is not the stored one. The hash of
// a line comes before those of the subtrees that it completes.
func (w *walk) compare(index int64) {
	if w.differs != nil || len(w.stored) == 0 {
		return
	}
	if cap(w.room) < len(w.stored) {
		w.room = make([]byte, len(w.stored))
	}
	there := w.hashes.stored(w.room[:len(w.stored)], index)
	if string(there) == string(w.stored[:len(there)]) {
		return
	}
	w.report.TreeDiffers = true
	for at := 0; at < len(there); at += tlog.HashSize {
		if string(there[at:at+tlog.HashSize]) == string(w.stored[at:at+tlog.HashSize]) {
			continue
		}
		if level, n := tlog.SplitStoredHashIndex(index + int64(at)/tlog.HashSize); level == 0 {
			line := uint64(n)
			w.differs = &line
			return
		}
	}
}
