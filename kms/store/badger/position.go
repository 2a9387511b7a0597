package badger

import (
	"sync"
	"sync/atomic"

	"github.com/keywright/keywright/kms/store"
)

// head is the last committed transaction and the reach of the change log.
type head struct {
	revision store.Revision // of the last transaction
	oldest   store.Revision // first one still in the change log; revision+1 when it is empty
}

// moment is what the store looks like from outside until the next change.
type moment struct {
	head
	stopped error         // why there will be no further moment
	passed  chan struct{} // closed when this moment is over
}

// position is the published state of the store: readers load it without a lock,
// watchers wait on it.
type position struct {
	mu      sync.Mutex // held to change current
	current atomic.Pointer[moment]
}

func (p *position) now() *moment { return p.current.Load() }

func (p *position) publish(h head) { p.change(func(m *moment) { m.head = h }) }

func (p *position) stop(err error) { p.change(func(m *moment) { m.stopped = err }) }

func (p *position) change(edit func(*moment)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.current.Load()
	next := moment{}
	if last != nil {
		next = *last
	}
	next.passed = make(chan struct{})
	edit(&next)
	p.current.Store(&next)
	if last != nil {
		close(last.passed)
	}
}
