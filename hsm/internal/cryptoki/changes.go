package cryptoki

import (
	"sync"
	"sync/atomic"
)

// changes keeps the making and removing of objects apart from each other and from
// searches, in a module that needs it. SoftHSM2 does: its locks are those of files,
// which hold off other processes but not the threads of one, so that a search which
// meets a half written object makes that object unusable for this process, and the
// call that made it fail with the object left behind.
type changes struct {
	alone atomic.Bool
	turn  sync.RWMutex
}

// ChangeAlone lets no object be made, removed or searched for while another is made
// or removed, from now on, by anybody in this process.
func (m *Module) ChangeAlone() { m.changes.alone.Store(true) }

// change waits until objects may be made or removed, and returns what ends that.
func (c *changes) change() (done func()) {
	if !c.alone.Load() {
		return func() {}
	}
	c.turn.Lock()
	return c.turn.Unlock
}

// search waits until objects may be searched for, and returns what ends that.
func (c *changes) search() (done func()) {
	if !c.alone.Load() {
		return func() {}
	}
	c.turn.RLock()
	return c.turn.RUnlock
}
