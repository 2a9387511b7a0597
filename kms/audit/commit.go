package audit

import (
	"runtime"
	"sync/atomic"

	"github.com/keywright/keywright/kms/audit/internal/index"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// lane keeps apart the lines that may use reserved disk space from those that
// may not, so that no batch holds both.
type lane int

const (
	laneOperation  lane = iota // uses of keys, reads, and what is denied
	laneManagement             // mutations and events
	lanes
)

func laneOf(p Phase) lane {
	if p == PhaseOperation {
		return laneOperation
	}
	return laneManagement
}

// body is an entry made ready for its line before its place is known: what
// follows the head, and what the index wants to know.
type body struct {
	text  []byte
	bytes int   // of the line with its newline, once its place is known
	at    int64 // microseconds since 1970
	terms []index.Term
}

func (b *body) set(e *Entry) {
	b.text = e.appendBody(b.text[:0])
	b.terms = e.terms(b.terms[:0])
	b.at = e.Time.UnixMicro()
}

// batch is what one write carries. Its first caller leads: it waits for its
// turn, in which time others join, and writes for all.
type batch struct {
	lane    lane
	bodies  []*body
	members atomic.Int32  // who still has to read the result
	done    chan struct{} // closed once all is written, or cannot be: that wakes all members at once; nil with one
	first   uint64        // sequence of the first line, after done
	err     error         // after done
}

// join adds encoded entries to the open batch of their lane and returns the place of
// the first there. Place 0 leads. The caller owes inflight a Done.
func (l *Log) join(bodies []*body, lane lane) (b *batch, place int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, ErrClosed
	}
	l.inflight.Add(1)
	if l.open[lane] == nil {
		l.open[lane] = l.batches.Get().(*batch)
		l.open[lane].lane = lane
	}
	b = l.open[lane]
	if place = len(b.bodies); place > 0 && b.done == nil { // somebody will wait for the leader
		b.done = make(chan struct{})
	}
	b.members.Add(1)
	b.bodies = append(b.bodies, bodies...)
	return b, place, nil
}

// written returns when the batch is written, or could not be.
func (l *Log) written(b *batch, place int) (uint64, error) {
	if place == 0 {
		l.lead(b)
		if b.done != nil {
			close(b.done)
		}
	} else {
		<-b.done
	}
	sequence, err := b.first+uint64(place), b.err
	if b.members.Add(-1) == 0 {
		clear(b.bodies)
		b.bodies, b.done, b.err = b.bodies[:0], nil, nil
		l.batches.Put(b)
	}
	return sequence, err
}

func (l *Log) lead(b *batch) {
	for joined := int32(0); joined != b.members.Load(); { // callers that are ready to run join first: one write instead of many
		joined = b.members.Load()
		runtime.Gosched()
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	l.open[b.lane] = nil
	l.mu.Unlock()
	b.first = l.next.Load()
	b.err = l.write(b)
}

// write gives the lines of b their numbers, writes them and adds them to the
// tree, in the turn to write.
func (l *Log) write(b *batch) error {
	if err := l.admit(b.lane); err != nil {
		return err
	}
	l.render(b)
	if err := l.spend(b.lane, func() error { return l.put(l.out[1:]) }); err != nil {
		return l.fail(err)
	}
	if err := l.tree.Extend(l.out); err != nil {
		l.fail(err) // the lines stand: their hashes wait until they can be written, and other lines with them
	}
	for _, body := range b.bodies {
		l.addToIndex(body.bytes, body.at, body.terms)
	}
	l.publish(len(b.bodies))
	l.settle()
	return nil
}

// spend does what takes up disk space. Lines of management may use the reserve
// when the disk is full.
func (l *Log) spend(lane lane, do func() error) error {
	err := do()
	if isFull(err) && lane == laneManagement && l.reserve.release() {
		l.fail(err)
		err = do()
	}
	return err
}

// admit refuses what must not even be tried: operations while the reserve is in
// use, for they would eat it up, or while too few lines are signed; anything
// while written lines cannot be synced or their hashes not be written.
func (l *Log) admit(lane lane) error {
	if l.unsynced.Load() {
		if err := l.syncTo(l.next.Load()); err != nil {
			return err
		}
	}
	if l.tree.Behind() {
		if err := l.writeHashes(lane); err != nil {
			return err
		}
	}
	if lane == laneOperation && !l.reserve.held() {
		return l.Health()
	}
	return l.unsigned(lane)
}

// writeHashes writes the hashes that wait in memory, in the turn to write.
func (l *Log) writeHashes(lane lane) error {
	if err := l.spend(lane, l.tree.Flush); err != nil {
		return l.fail(err)
	}
	return nil
}

func (l *Log) render(b *batch) {
	if cap(l.out) > 1<<20 { // a rare giant should not stay
		l.out = nil
	}
	l.out = append(l.out[:0], 0)
	for i, body := range b.bodies {
		start := len(l.out)
		l.out = layout.AppendHead(l.out, b.first+uint64(i))
		l.out = append(l.out, body.text...)
		l.out = append(l.out, '\n')
		body.bytes = len(l.out) - start
	}
}

// put appends lines to the last segment, or to a new one if they do not fit,
// and removes what a failed write left of them.
func (l *Log) put(lines []byte) error {
	last := l.last()
	if last.size > 0 && last.size+int64(len(lines)) > l.options.SegmentBytes {
		if err := l.roll(); err != nil {
			return err
		}
		last = l.last()
	}
	if l.torn {
		if err := l.file.Truncate(last.size); err != nil {
			return err
		}
	}
	_, err := l.file.WriteAt(lines, last.size)
	if l.torn = err != nil && l.file.Truncate(last.size) != nil; err != nil {
		l.room = 0
		return err
	}
	l.askForRoom(last.size + int64(len(lines)))
	return nil
}

// publish makes the lines just written visible.
func (l *Log) publish(lines int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[len(l.segments)-1].size += int64(len(l.out) - 1)
	l.next.Add(uint64(lines))
	l.writes.Add(1)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

func (l *Log) last() segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segments[len(l.segments)-1]
}
