package audit

import (
	"context"
	"errors"
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
	Action    string
	Namespace string
	Key       string
	Outcome   string
	RequestID string

	Limit  int  // at most so many lines
	Newest bool // the last Limit lines (all if that is 0) instead of the first; still oldest first
}

func (f *Filter) admits(e *Entry) bool {
	return (f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until)) &&
		matches(f.Principal, e.Principal) &&
		matches(f.Outcome, e.Outcome) &&
		matches(f.RequestID, e.RequestID) &&
		f.admitsTarget(e)
}

// admitsTarget looks for one thing acted on that is all that the filter names.
func (f *Filter) admitsTarget(e *Entry) bool {
	return f.names(e.Action, e.Namespace, e.Key) ||
		slices.ContainsFunc(e.Batch, func(b BatchCount) bool { return f.names(b.Action, b.Namespace, b.Key) })
}

func (f *Filter) names(action, namespace, key string) bool {
	return matches(f.Action, action) && matches(f.Namespace, namespace) && matches(f.Key, key)
}

func matches(wanted, got string) bool { return wanted == "" || wanted == got }

// errEnough ends a walk whose limit is reached.
var errEnough = errors.New("enough")

// limited passes on what f admits, up to its limit.
func limited(f Filter, fn func(Entry) error) func(Entry) error {
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
// ctx ends. It sees the lines that were written when it began. With f.Newest it
// holds f.Limit entries in memory. The error for a damaged line is a
// *CorruptError.
func (l *Log) Scan(ctx context.Context, f Filter, fn func(Entry) error) error {
	segments, next := l.snapshot()
	to := next
	if f.To != 0 {
		to = min(to, f.To)
	}
	if f.Newest && f.Limit > 0 {
		return scanNewest(ctx, l.dir, segments, f, to, fn)
	}
	err := walk(ctx, l.dir, segments, f.From, to, limited(f, fn))
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// scanNewest walks through ever wider stretches, from the end backwards, until
// it has found enough.
func scanNewest(ctx context.Context, dir string, segments []segment, f Filter, to uint64, fn func(Entry) error) error {
	var found []Entry
	for width := uint64(f.Limit); to > f.From && len(found) < f.Limit; width *= 2 {
		from := max(f.From, to-min(to, width))
		var stretch []Entry
		err := walk(ctx, dir, segments, from, to, func(e Entry) error {
			if f.admits(&e) {
				stretch = append(stretch, e)
			}
			return nil
		})
		if err != nil {
			return err
		}
		found, to = append(stretch, found...), from
	}
	for _, e := range found[max(0, len(found)-f.Limit):] {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// tailPause lets lines gather, so that a busy log does not keep a follower busy
// for each of them.
const tailPause = 10 * time.Millisecond

// Tail is a Scan from the sequence from that goes on with each line written
// later, until ctx ends, fn fails, f.Limit is reached (which returns nil) or
// the log is closed (ErrClosed). f.From and f.Newest are ignored.
func (l *Log) Tail(ctx context.Context, from uint64, f Filter, fn func(Entry) error) error {
	fn = limited(f, fn)
	for f.To == 0 || from < f.To {
		if err := l.waitFor(ctx, from); err != nil {
			return err
		}
		segments, to := l.snapshot()
		if f.To != 0 {
			to = min(to, f.To)
		}
		err := walk(ctx, l.dir, segments, from, to, fn)
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

// walk calls fn for the lines from..to (excluded), in the order of the log.
func walk(ctx context.Context, dir string, segments []segment, from, to uint64, fn func(Entry) error) error {
	for i, s := range segments {
		end := to
		if i+1 < len(segments) {
			end = min(end, segments[i+1].first)
		}
		if from >= end {
			continue
		}
		if err := walkSegment(ctx, dir, s, from, end, fn); err != nil {
			return err
		}
		from = end
	}
	return nil
}
