package kms

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/internal/cow"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

const (
	// maxQuotaCallers bounds the principals whose calls are counted; beyond, all
	// begin anew.
	maxQuotaCallers = 65_536
	// keyCountAge is how long the number of a namespace's keys is believed: other
	// servers make and delete some too.
	keyCountAge = time.Minute
)

// quotas counts what is bounded: calls by principal and by namespace, and keys of
// a namespace. Each server counts for itself. Counting a call takes no lock.
type quotas struct {
	callers    atomic.Pointer[cow.Map[string, *bucket]] // by principal
	namespaces *cow.Map[ID, *bucket]
	keys       *cow.Map[ID, *keyCount]
	making     sync.Mutex // of buckets and counts
}

func newQuotas() quotas {
	return quotas{namespaces: cow.New[ID, *bucket](), keys: cow.New[ID, *keyCount]()}
}

// bucket lets through what an average over a second allows, by the generic cell
// rate algorithm (ITU-T I.371): it holds when the last call let through would have
// come, had all come evenly.
type bucket struct{ due atomic.Int64 } // nanoseconds since 1970

// take tells whether one more call is within perSecond, which is not 0.
func (b *bucket) take(now time.Time, perSecond uint64) bool {
	step, at := int64(max(1, uint64(time.Second)/perSecond)), now.UnixNano()
	for {
		due := b.due.Load()
		next := max(due, at)
		if next > at+2*int64(time.Second) { // the clock was set back
			next = at
		}
		if next+step > at+int64(time.Second) {
			return false
		}
		if b.due.CompareAndSwap(due, next+step) {
			return true
		}
	}
}

// obtain returns what m holds for k, made if there is none yet.
func obtain[K comparable, V any](making *sync.Mutex, m *cow.Map[K, *V], k K) *V {
	if v, ok := m.Load(k); ok {
		return v
	}
	making.Lock()
	defer making.Unlock()
	v, ok := m.Load(k)
	if !ok {
		v = new(V)
		m.Store(k, v)
	}
	return v
}

// withinCallerQuota refuses a caller that calls too often, before anything is
// decided for it.
func (s *Service) withinCallerQuota(t *trace) error {
	perSecond := s.config.CallerRequestsPerSecond
	if perSecond == 0 {
		return nil
	}
	callers := s.quotas.callers.Load()
	if callers == nil || callers.Len() >= maxQuotaCallers {
		fresh := cow.New[string, *bucket]()
		s.quotas.callers.CompareAndSwap(callers, fresh)
		callers = s.quotas.callers.Load()
	}
	if obtain(&s.quotas.making, callers, t.entry.Principal).take(t.start, perSecond) {
		return nil
	}
	return &Error{Code: ResourceExhausted, Reason: "CALLER_QUOTA",
		Message: fmt.Sprintf("%s asks for more than %d operations a second, the limit of a caller on this server (limits.caller_requests_per_second); slow down and try again", t.entry.Principal, perSecond)}
}

// withinNamespaceQuota refuses what is permitted, but too often. The change that
// raises the quota always goes through.
func (s *Service) withinNamespaceQuota(t *trace, action policy.Action, namespace string) error {
	if namespace == "" || action == policy.UpdateNamespace {
		return nil
	}
	ns, ok := s.namespaces.Load(namespace)
	if !ok || ns.Quotas.RequestsPerSecond == 0 {
		return nil
	}
	if obtain(&s.quotas.making, s.quotas.namespaces, ns.ID).take(t.start, ns.Quotas.RequestsPerSecond) {
		return nil
	}
	return &Error{Code: ResourceExhausted, Reason: "NAMESPACE_QUOTA",
		Message: fmt.Sprintf("namespace %s is asked for more than its quota requests_per_second, %d on each server; slow down, or have an administrator raise it", namespace, ns.Quotas.RequestsPerSecond)}
}

// keyCount is how many names of keys a namespace has.
type keyCount struct {
	creating sync.Mutex // held while a key is created, so that none is created beside the count

	lock  sync.Mutex // guards the following
	n     uint64
	most  uint64    // where counting stopped
	as    time.Time // when it was counted; zero: not known
	epoch uint64    // counts what made it unknown
}

// forget has the keys counted again before the next one is created.
func (c *keyCount) forget() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.as = time.Time{}
	c.epoch++
}

func (c *keyCount) add() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.n++
}

// get returns the count if it may be believed at now, for a quota of most.
func (c *keyCount) get(now time.Time, most uint64) (n uint64, ok bool, epoch uint64) {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.n, !c.as.IsZero() && now.Sub(c.as).Abs() <= keyCountAge && most <= c.most, c.epoch
}

// set notes a count, unless something has changed since the epoch it began in.
func (c *keyCount) set(n, most uint64, as time.Time, epoch uint64) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.epoch == epoch {
		c.n, c.most, c.as = n, most, as
	}
}

// creationLock serialises the creation of keys where a quota bounds them.
func (s *Service) creationLock(namespace string, id ID) *sync.Mutex {
	if ns, ok := s.namespaces.Load(namespace); ok && ns.Quotas.MaxKeys != 0 {
		return &obtain(&s.quotas.making, s.quotas.keys, ns.ID).creating
	}
	return s.lock(id)
}

// checkKeyQuota refuses one more key than the namespace's quota. With several
// servers what others create within keyCountAge is not seen.
func (s *Service) checkKeyQuota(ctx context.Context, ns *namespace, tx *transaction) error {
	limit := ns.Quotas.MaxKeys
	if limit == 0 {
		return nil
	}
	count := obtain(&s.quotas.making, s.quotas.keys, ns.ID)
	now := s.now()
	n, known, epoch := count.get(now, limit)
	if !known {
		var err error
		if n, err = s.countNames(ctx, ns.ID, limit); err != nil {
			return err
		}
		count.set(n, limit, now, epoch)
	}
	if n >= limit {
		return &Error{Code: ResourceExhausted, Reason: "KEY_QUOTA", Field: "key",
			Message: fmt.Sprintf("namespace %s has as many keys as its quota max_keys, %d, allows; delete one, or have an administrator raise it", ns.Name, limit)}
	}
	tx.then(func(store.Revision) { count.add() })
	return nil
}

// countNames counts the namespace's keys that are not deleted, up to most.
func (s *Service) countNames(ctx context.Context, ns ID, most uint64) (n uint64, err error) {
	for after, more := "", true; more && n < most; more = after != "" {
		page, err := s.store.List(ctx, prefixKeyNames(ns), after, store.MaxPageRecords)
		if err != nil {
			return 0, storeError(err)
		}
		n, after = n+uint64(len(page.Records)), page.Next
	}
	return n, nil
}

// keysChanged has the namespace's keys counted again, once the transaction that
// frees or takes a name is done.
func (s *Service) keysChanged(tx *transaction, ns ID) {
	tx.then(func(store.Revision) {
		if count, ok := s.quotas.keys.Load(ns); ok {
			count.forget()
		}
	})
}
