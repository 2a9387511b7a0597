package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Filter says which lines a Scan or Tail is about; all conditions must hold,
// and a zero field is none. Texts must be equal. A line about a batch has the
// namespaces, keys and actions of all its counts.
type Filter struct {
	From, To     uint64    // sequences, To excluded
	Since, Until time.Time // of Entry.Time, Until excluded

	Principal string
	TokenID   string
	Action    string
	Namespace string
	Key       string
	KeyID     uint64
	Outcome   string
	RequestID string

	Limit  int  // at most so many lines
	Newest bool // the last Limit lines (all if that is 0) instead of the first; still oldest first
}

func (f *Filter) admits(e *Entry) bool {
	return (f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until)) &&
		matches(f.Principal, e.Principal) &&
		matches(f.TokenID, e.TokenID) &&
		matches(f.Outcome, e.Outcome) &&
		matches(f.RequestID, e.RequestID) &&
		f.admitsTarget(e)
}

// admitsTarget looks for one thing acted on that is all that the filter names.
func (f *Filter) admitsTarget(e *Entry) bool {
	return f.names(e.Action, e.Namespace, e.Key, e.KeyID) ||
		slices.ContainsFunc(e.Batch, func(b BatchCount) bool { return f.names(b.Action, b.Namespace, b.Key, b.KeyID) })
}

func (f *Filter) names(action, namespace, key string, id uint64) bool {
	return matches(f.Action, action) && matches(f.Namespace, namespace) && matches(f.Key, key) && matches(f.KeyID, id)
}

// matches tells whether got is what is wanted, if anything is.
func matches[V comparable](wanted, got V) bool {
	var none V
	return wanted == none || wanted == got
}

// errEnough ends a walk whose limit is reached.
var errEnough = errors.New("enough")

// limited passes on what f admits, up to its limit.
func limited(f *Filter, fn func(Entry) error) func(Entry) error {
	left := f.Limit
	return func(e Entry) error {
		if !f.admits(&e) {
			return nil
		}
		if err := fn(e); err != nil {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	}
}

// Scan calls fn for each line that f admits, oldest first, until fn fails or
// ctx ends. It sees the lines that were written when it began. With the help of
// an index it reads little more than the lines that it passes on. With f.Newest
// it holds f.Limit entries in memory. The error for a damaged line is a
// *CorruptError; one that f cannot admit may go unnoticed.
func (l *Log) Scan(ctx context.Context, f Filter, fn func(Entry) error) error {
	segments, next := l.snapshot()
	to := next
	if f.To != 0 {
		to = min(to, f.To)
	}
	q := newQuery(&f)
	if f.Newest && f.Limit > 0 {
		return l.scanNewest(ctx, segments, q, to, fn)
	}
	err := l.walk(ctx, segments, q, f.From, to, limited(&f, fn))
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// scanNewest reads backwards, span by span, until it has found enough.
func (l *Log) scanNewest(ctx context.Context, segments []segment, q *query, to uint64, fn func(Entry) error) error {
	from := q.From
	if !q.selective() { // every line will do
		from = max(from, to-min(to, uint64(q.Limit)))
	}
	var found []Entry // newest first
	for i, s := range slices.Backward(segments) {
		end, last := endOf(segments, i, to)
		if len(found) >= q.Limit || from >= end {
			break
		}
		if s.first >= end {
			continue
		}
		for _, p := range slices.Backward(l.spans(ctx, s, max(from, s.first), end, last, q)) {
			stretch, err := l.newestOf(ctx, s, p, q)
			if err != nil {
				return err
			}
			if found = append(found, stretch...); len(found) >= q.Limit {
				break
			}
		}
	}
	for _, e := range slices.Backward(found[:min(len(found), q.Limit)]) {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// newestOf returns the last q.Limit lines of a span, newest first.
func (l *Log) newestOf(ctx context.Context, s segment, p span, q *query) (found []Entry, err error) {
	err = l.walkSpans(ctx, s, []span{p}, q, func(e Entry) error {
		if !q.admits(&e) {
			return nil
		}
		if len(found) == 2*q.Limit { // do not hold a whole segment
			found = append(found[:0], found[q.Limit:]...)
		}
		found = append(found, e)
		return nil
	})
	slices.Reverse(found)
	return found, err
}

// tailPause lets lines gather, so that a busy log does not keep a follower busy
// for each of them.
const tailPause = 10 * time.Millisecond

// Tail is a Scan from the sequence from that goes on with each line written
// later, until ctx ends, fn fails, f.Limit is reached (which returns nil) or
// the log is closed (ErrClosed). f.From and f.Newest are ignored.
func (l *Log) Tail(ctx context.Context, from uint64, f Filter, fn func(Entry) error) error {
	fn = limited(&f, fn)
	q := newQuery(&Filter{}) // what is new is read whole
	for f.To == 0 || from < f.To {
		if err := l.waitFor(ctx, from); err != nil {
			return err
		}
		segments, to := l.snapshot()
		if f.To != 0 {
			to = min(to, f.To)
		}
		err := l.walk(ctx, segments, q, from, to, fn)
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
		from = to
	}
	return nil
}

// waitFor returns when the line with the given sequence is written.
func (l *Log) waitFor(ctx context.Context, sequence uint64) error {
	for {
		changed := l.nextChange(sequence)
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
			l.pause(tailPause)
		case <-ctx.Done():
			return ctx.Err()
		case <-l.stop:
			return ErrClosed
		}
	}
}

// nextChange returns a channel that the next write closes, or nil if the line
// with the given sequence is already there.
func (l *Log) nextChange(sequence uint64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next.Load() > sequence {
		return nil
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

func (l *Log) snapshot() (segments []segment, next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.segments), l.next.Load()
}

// walk calls fn for those lines from..to (excluded) that q may admit, in the
// order of the log. It passes over what was dropped.
func (l *Log) walk(ctx context.Context, segments []segment, q *query, from, to uint64, fn func(Entry) error) error {
	for i, s := range segments {
		end, last := endOf(segments, i, to)
		if from >= end || s.first >= end {
			continue
		}
		if err := l.walkSpans(ctx, s, l.spans(ctx, s, max(from, s.first), end, last, q), q, fn); err != nil {
			return err
		}
	}
	return nil
}

// endOf returns with which line segment i ends (excluded), at most to, and where
// it really ends if another follows, else 0.
func endOf(segments []segment, i int, to uint64) (end, last uint64) {
	if i+1 == len(segments) {
		return to, 0
	}
	last = segments[i+1].first
	return min(to, last), last
}

// walkSpans calls fn for the lines of the spans that q may admit, unless the
// segment was dropped meanwhile.
func (l *Log) walkSpans(ctx context.Context, s segment, spans []span, q *query, fn func(Entry) error) error {
	if len(spans) == 0 {
		return nil
	}
	file, err := os.Open(l.path(s.name()))
	if errors.Is(err, os.ErrNotExist) && l.Stats().First > s.first {
		return nil
	}
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	defer file.Close()
	for _, p := range spans {
		if err := walkSpan(ctx, p.at(file, s), p, q, fn); err != nil {
			return err
		}
	}
	return nil
}

func walkSpan(ctx context.Context, r *lineReader, p span, q *query, fn func(Entry) error) error {
	for r.next < p.to {
		if err := ctx.Err(); err != nil {
			return err
		}
		wanted := r.next >= p.from
		e, ok, err := r.readIf(q.mayLine)
		if err != nil {
			return r.ended(err)
		}
		if !ok || !wanted {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}
