package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keywright/keywright/kms/audit/internal/canonical"
	"github.com/keywright/keywright/kms/audit/internal/index"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// What lines can be asked for by the index. The numbers stand in files, which
// are made anew when they change: see indexSuffix.
const (
	termRequest uint8 = 1 + iota
	termPrincipal
	termToken
	termOutcome
	termAction
	termNamespace
	termKey
	termKeyID
)

// indexSuffix names the form of the index and the terms in it.
const indexSuffix = ".index1"

func (s segment) indexName() string { return strings.TrimSuffix(s.name(), layout.Suffix) + indexSuffix }

// terms appends what the entry can be asked for.
func (e *Entry) terms(dst []index.Term) []index.Term {
	dst = appendTerm(dst, termRequest, e.RequestID)
	dst = appendTerm(dst, termPrincipal, e.Principal)
	dst = appendTerm(dst, termToken, e.TokenID)
	dst = appendTerm(dst, termOutcome, e.Outcome)
	dst = appendTarget(dst, e.Action, e.Namespace, e.Key, e.KeyID)
	for i := range e.Batch {
		b := &e.Batch[i]
		dst = appendTarget(dst, b.Action, b.Namespace, b.Key, b.KeyID)
	}
	return dst
}

// appendTarget appends what was done to what, and the key within its namespace.
func appendTarget(dst []index.Term, action, namespace, key string, id uint64) []index.Term {
	dst = appendTerm(dst, termAction, action)
	dst = appendTerm(dst, termNamespace, namespace)
	dst = appendTerm(dst, termKey, key)
	if namespace != "" && key != "" {
		dst = append(dst, index.Both(dst[len(dst)-2], dst[len(dst)-1]))
	}
	if id != 0 {
		dst = append(dst, index.OfNumber(termKeyID, id))
	}
	return dst
}

func appendTerm(dst []index.Term, field uint8, value string) []index.Term {
	if value == "" {
		return dst
	}
	if !utf8.ValidString(value) {
		value = string([]rune(value)) // as it stands in the line
	}
	return append(dst, index.Of(field, value))
}

// query is a filter made ready to pass over what it cannot admit.
type query struct {
	*Filter
	terms   []index.Term
	needles [][]byte // which a line must hold
}

func newQuery(f *Filter) *query {
	asked := Entry{
		RequestID: f.RequestID, Principal: f.Principal, TokenID: f.TokenID, Outcome: f.Outcome,
		Action: f.Action, Namespace: f.Namespace, Key: f.Key, KeyID: f.KeyID,
	}
	q := &query{Filter: f, terms: asked.terms(nil)}
	for _, text := range []string{f.RequestID, f.Principal, f.TokenID, f.Outcome, f.Action, f.Namespace, f.Key} {
		if text != "" {
			q.needles = append(q.needles, canonical.AppendQuoted(nil, text))
		}
	}
	return q
}

// selective tells whether the index can help.
func (q *query) selective() bool { return len(q.terms) > 0 || !q.Since.IsZero() || !q.Until.IsZero() }

// may tells whether a line of the block may be admitted.
func (q *query) may(b *index.Block) bool {
	return (q.Since.IsZero() || b.Newest >= q.Since.UnixMicro()) &&
		(q.Until.IsZero() || b.Oldest <= q.Until.UnixMicro()) &&
		b.May(q.terms)
}

// mayLine is may for a line, without reading it properly.
func (q *query) mayLine(line []byte) bool {
	return !slices.ContainsFunc(q.needles, func(needle []byte) bool { return !bytes.Contains(line, needle) })
}

// span is a stretch of lines to be read, from..to (excluded). If offset is not
// negative, the line first lies there, and from is not far.
type span struct {
	from, to uint64
	first    uint64
	offset   int64
}

// spans returns where in the lines from..to (excluded) of a segment there may be
// some that q admits, in order. What the index does not cover may hold some.
func (l *Log) spans(ctx context.Context, s segment, from, to, end uint64, q *query) []span {
	if !q.selective() {
		return []span{{from: from, to: to, offset: -1}}
	}
	if end != 0 && index.Excludes(l.path(s.indexName()), end, q.terms) {
		return nil
	}
	found, covered := l.indexed(s, from, to, q)
	if end != 0 && covered != end {
		l.reindex(ctx, s, end)
		found, covered = l.indexed(s, from, to, q)
	}
	if covered < to {
		found = append(found, span{from: max(from, covered), to: to, offset: -1})
	}
	return found
}

// indexed returns the spans that the segment's index names, and with which line
// (excluded) it ends.
func (l *Log) indexed(s segment, from, to uint64, q *query) (found []span, covered uint64) {
	covered, err := index.Read(l.path(s.indexName()), s.first, func(b *index.Block) {
		if end := b.First + b.Lines; b.First < to && end > from && q.may(b) {
			found = append(found, span{max(from, b.First), min(to, end), b.First, b.Offset})
		}
	})
	if err != nil {
		l.unindexed(err)
		return nil, s.first
	}
	return found, covered
}

// reindex makes the index of a segment, whose lines end before end, anew if it is
// not complete. Without one the lines are found by reading them.
func (l *Log) reindex(ctx context.Context, s segment, end uint64) {
	l.indexing.Lock()
	defer l.indexing.Unlock()
	if covered, err := index.Read(l.path(s.indexName()), s.first, func(*index.Block) {}); err == nil && covered == end {
		return // somebody else made it
	}
	if err := l.makeIndex(ctx, s, end); err != nil {
		l.unindexed(err)
	}
}

func (l *Log) makeIndex(ctx context.Context, s segment, end uint64) error {
	temporary := l.path(s.indexName() + ".new")
	w, err := index.Create(temporary, s.first)
	if err != nil {
		return err
	}
	r, err := l.openSegment(s)
	if err == nil {
		defer r.file.Close()
		err = feed(ctx, w, r, end)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return os.Rename(temporary, l.path(s.indexName()))
}

// feed gives the lines of r up to end (excluded) to an index.
func feed(ctx context.Context, w *index.Writer, r *lineReader, end uint64) error {
	var terms []index.Term
	for r.next < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := r.read()
		if err != nil {
			return r.ended(err)
		}
		terms = e.terms(terms[:0])
		if err := w.Add(int64(len(r.line))+1, e.Time.UnixMicro(), terms); err != nil {
			return err
		}
	}
	return nil
}

// openSegment returns a reader at the segment's first line; its file is to be closed.
func (l *Log) openSegment(s segment) (*lineReader, error) {
	file, err := os.Open(l.path(s.name()))
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return newLineReader(file, s, 0, s.first), nil
}

// at returns a reader at or shortly before the span's first line.
func (p span) at(file *os.File, s segment) *lineReader {
	if p.offset >= 0 && p.offset < s.size {
		head := make([]byte, layout.HeadBytes)
		n, err := file.ReadAt(head, p.offset)
		if sequence, ok := layout.Head(head[:n]); ok && sequence == p.first && (err == nil || errors.Is(err, io.EOF)) {
			return newLineReader(file, s, p.offset, p.first)
		}
	}
	return seek(file, s, p.from)
}

// startIndex begins the index of the last segment, in the turn to write. Without
// it lines are found by reading them.
func (l *Log) startIndex(s segment) {
	l.endIndex()
	var err error
	if l.index, err = index.Create(l.path(s.indexName()), s.first); err != nil {
		l.index = nil
		l.unindexed(err)
	}
}

// endIndex writes what is left of the index, if it can be.
func (l *Log) endIndex() {
	if l.index == nil {
		return
	}
	if err := l.index.Close(); err != nil {
		l.unindexed(err)
	}
	l.index = nil
}

// addToIndex adds a line that was written.
func (l *Log) addToIndex(bytes int, at int64, terms []index.Term) {
	if l.index == nil {
		return
	}
	if err := l.index.Add(int64(bytes), at, terms); err != nil {
		_ = l.index.Abandon()
		l.index = nil
		l.unindexed(err)
	}
}

func (l *Log) unindexed(err error) {
	l.options.Logger.Warn("audit log: lines cannot be indexed; searching for them takes longer", "dir", l.dir, "error", err)
}
