package audit

import (
	"runtime"
	"sync"
	"sync/atomic"
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

// headBytes is room for what appendHead writes, and the newline.
const headBytes = 40

// batch is what one write carries. Its first caller leads: it waits for its
// turn, in which time others join, and writes for all.
type batch struct {
	lane    lane
	bodies  []*[]byte
	members atomic.Int32 // who still has to read the result
	done    sync.WaitGroup
	first   uint64 // sequence of the first line, after done
	err     error  // after done
}

// join adds an encoded entry to the open batch of its lane and returns its
// place there. Place 0 leads. The caller owes inflight a Done.
func (l *Log) join(body *[]byte, lane lane) (b *batch, place int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, ErrClosed
	}
	l.inflight.Add(1)
	if l.open[lane] == nil {
		l.open[lane] = l.batches.Get().(*batch)
		l.open[lane].lane = lane
		l.open[lane].done.Add(1)
	}
	b = l.open[lane]
	b.members.Add(1)
	b.bodies = append(b.bodies, body)
	return b, len(b.bodies) - 1, nil
}

// written returns when the batch is written, or could not be.
func (l *Log) written(b *batch, place int) (uint64, error) {
	if place == 0 {
		l.lead(b)
		b.done.Done()
	} else {
		b.done.Wait()
	}
	sequence, err := b.first+uint64(place), b.err
	if b.members.Add(-1) == 0 {
		clear(b.bodies)
		b.bodies, b.err = b.bodies[:0], nil
		l.batches.Put(b)
	}
	return sequence, err
}

func (l *Log) lead(b *batch) {
	runtime.Gosched() // callers that are ready to run join first: one write instead of many
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	l.open[b.lane] = nil
	l.mu.Unlock()
	b.first = l.next.Load()
	b.err = l.write(b)
}

// write gives the lines of b their numbers and writes them, in the turn to
// write. Lines of management may use the reserve when the disk is full.
func (l *Log) write(b *batch) error {
	if err := l.admit(b.lane); err != nil {
		return err
	}
	l.render(b)
	err := l.put(l.out)
	if isFull(err) && b.lane == laneManagement && l.reserve.release() {
		l.fail(err)
		err = l.put(l.out)
	}
	if err != nil {
		return l.fail(err)
	}
	l.publish(len(b.bodies))
	l.settle()
	return nil
}

// admit refuses what must not even be tried: operations while the reserve is in
// use, for they would eat it up; anything while written lines cannot be synced.
func (l *Log) admit(lane lane) error {
	if l.unsynced.Load() {
		if err := l.syncTo(l.next.Load()); err != nil {
			return err
		}
	}
	if lane == laneOperation && !l.reserve.held() {
		return l.Health()
	}
	return nil
}

func (l *Log) render(b *batch) {
	if cap(l.out) > 1<<20 { // a rare giant should not stay
		l.out = nil
	}
	l.out = l.out[:0]
	for i, body := range b.bodies {
		l.out = appendHead(l.out, b.first+uint64(i))
		l.out = append(l.out, *body...)
		l.out = append(l.out, '\n')
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
	_, err := l.file.Write(lines)
	l.torn = err != nil && l.file.Truncate(last.size) != nil
	return err
}

// publish makes the lines just written visible.
func (l *Log) publish(lines int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[len(l.segments)-1].size += int64(len(l.out))
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
