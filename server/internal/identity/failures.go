package identity

import (
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/keywright/keywright/kms"
)

// ReasonTooManyFailures is the reason of credentials that are refused unseen.
const ReasonTooManyFailures = "TOO_MANY_FAILURES"

const (
	failureWindow = time.Minute
	// maxSources bounds the sources remembered. When there are more, some that
	// failed are forgotten, never any held up in their place.
	maxSources = 8192
)

// failures limits how often credentials from a source may be refused: an
// address, for IPv6 its /64, or a peer's uid. A leaky bucket for each source
// holds the failures of a minute, and leaks evenly.
type failures struct {
	limit int // in a minute; 0 is none
	clock func() time.Time

	mu    sync.Mutex
	empty map[origin]time.Time // when the bucket of a source will be empty
}

// origin is where failures are counted together.
type origin struct {
	network netip.Prefix
	uid     int64 // -1 for what came over a network
}

func newFailures(limit int, clock func() time.Time) *failures {
	return &failures{limit: limit, clock: clock, empty: map[origin]time.Time{}}
}

func originOf(c *Connection) origin {
	if c.local {
		return origin{uid: int64(c.uid)}
	}
	bits := c.Source.BitLen()
	if c.Source.Is6() {
		bits = 64
	}
	network, _ := c.Source.Prefix(bits) // the zero Prefix for no address
	return origin{network: network, uid: -1}
}

// drop is how long one failure takes to leak away.
func (f *failures) drop() time.Duration { return failureWindow / time.Duration(f.limit) }

// refusal is the error for more credentials from a source that has failed too
// often, nil for others.
func (f *failures) refusal(c *Connection) error {
	if f.limit <= 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	at, failed := f.empty[originOf(c)]
	wait := at.Add(f.drop() - failureWindow).Sub(f.clock())
	if !failed || wait <= 0 {
		return nil
	}
	return &kms.Error{Code: kms.ResourceExhausted, Reason: ReasonTooManyFailures,
		Message: fmt.Sprintf("credentials from this address were refused %d times within a minute, its limit; mend them, and try again in %s", f.limit, wait.Round(time.Millisecond))}
}

func (f *failures) note(c *Connection) {
	if f.limit <= 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now, from := f.clock(), originOf(c)
	at, known := f.empty[from]
	if !known {
		f.makeRoom(now)
	}
	if at.Before(now) {
		at = now
	}
	if at = at.Add(f.drop()); at.Sub(now) > failureWindow {
		at = now.Add(failureWindow)
	}
	f.empty[from] = at
}

func (f *failures) makeRoom(now time.Time) {
	if len(f.empty) < maxSources {
		return
	}
	maps.DeleteFunc(f.empty, func(_ origin, at time.Time) bool { return !at.After(now) })
	for from := range f.empty { // in no order
		if len(f.empty) <= maxSources*3/4 {
			return
		}
		delete(f.empty, from)
	}
}
