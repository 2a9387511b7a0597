package kms

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/store"
)

// maxBlock is how many uses are reserved at once at most; a crash wastes no more.
const maxBlock = 1 << 20

// unlimited is the count of uses that nothing bounds.
const unlimited = ^uint64(0)

// errUsesSpent says that a version's max_uses are used up: rotate, then go on.
var errUsesSpent = errors.New("uses spent")

// usage follows the uses of one version. They are counted in blocks: a block is
// reserved durably before its first use, so that a crash wastes uses but never
// forgets one. The record holds the sum of all blocks; memory only what is left
// of the last, so any number of servers may reserve from the same record.
type usage struct {
	ns        *namespace
	key       ID
	number    uint32
	remaining atomic.Int64
	block     atomic.Int64 // size of the last block
	ahead     atomic.Bool  // the next block is being reserved
	reserve   sync.Mutex
	lastUsed  atomic.Int64 // hours since 1970, 0 for never
}

func newUsage(k *key, number uint32) *usage { return &usage{ns: k.ns, key: k.ID, number: number} }

// dirtyUsage gathers the versions whose time of last use is not stored yet.
type dirtyUsage struct {
	lock sync.Mutex
	list []*usage
}

// touch notes a use, once an hour.
func (s *Service) touch(u *usage, now time.Time) {
	hour := now.Unix() / 3600
	if u.lastUsed.Load() == hour || u.lastUsed.Swap(hour) == hour {
		return
	}
	s.dirty.lock.Lock()
	defer s.dirty.lock.Unlock()
	s.dirty.list = append(s.dirty.list, u)
}

// usesLimit is how often a version may be used to encrypt, sign or MAC: hard is
// the algorithm's own limit, soft the key's max_uses, which is of the primary version.
func (s *Service) usesLimit(k *key, number uint32) (hard, soft uint64) {
	hard, soft = unlimited, unlimited
	if n := k.nonceLimit(); n > 0 {
		hard = n
		if s.config.NonceLimit > 0 {
			hard = min(n, s.config.NonceLimit)
		}
	}
	if k.Rotation.MaxUses > 0 && number == k.PrimaryVersion {
		soft = k.Rotation.MaxUses
	}
	return hard, soft
}

// spend counts one use of a version to encrypt, sign or MAC. It fails with
// errUsesSpent when the key is to be rotated first, and with RESOURCE_EXHAUSTED
// at the algorithm's limit.
func (s *Service) spend(ctx context.Context, k *key, v *version) error {
	hard, soft := s.usesLimit(k, v.number)
	if hard == unlimited && soft == unlimited {
		return nil
	}
	u := v.usage
	left := u.remaining.Add(-1)
	if left >= 0 {
		if left < u.block.Load()/2 && u.ahead.CompareAndSwap(false, true) {
			go s.reserveAhead(k, u)
		}
		return nil
	}
	u.remaining.Add(1)
	return s.spendReserved(ctx, k, u)
}

// spendReserved reserves a block and takes one use of it, unless another caller
// has just reserved one.
func (s *Service) spendReserved(ctx context.Context, k *key, u *usage) error {
	u.reserve.Lock()
	defer u.reserve.Unlock()
	for {
		if u.remaining.Add(-1) >= 0 {
			return nil
		}
		u.remaining.Add(1)
		if err := s.reserveBlock(ctx, k, u); err != nil {
			return err
		}
	}
}

func (s *Service) reserveAhead(k *key, u *usage) {
	defer u.ahead.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	u.reserve.Lock()
	defer u.reserve.Unlock()
	if u.remaining.Load() >= u.block.Load()/2 {
		return
	}
	// Failing is no harm yet: whoever takes the last use tries again and says why.
	if err := s.reserveBlock(ctx, k, u); err != nil && !errors.Is(err, errUsesSpent) {
		s.log.Warn("next block of uses was not reserved", "key", k.ID, "version", u.number, "error", err)
	}
}

// reserveBlock adds a block to the record, durably, and then to what remains. The
// caller holds u.reserve.
func (s *Service) reserveBlock(ctx context.Context, k *key, u *usage) error {
	hard, soft := s.usesLimit(k, u.number)
	var granted uint64
	err := s.updateUsage(ctx, u, func(r *usageRecord) error {
		switch {
		case r.Reserved >= hard:
			return &Error{Code: ResourceExhausted, Reason: "VERSION_EXHAUSTED",
				Message: "this key version has encrypted as many messages as is safe with random nonces; rotate the key"}
		case r.Reserved >= soft:
			return errUsesSpent
		}
		limit := min(hard, soft)
		granted = min(max(limit/16, 1), maxBlock, limit-r.Reserved)
		r.Reserved += granted
		if soft == unlimited && r.Reserved >= hard/2 && u.number == k.PrimaryVersion && checkRotatable(k.Key) == nil {
			s.jobs.rotateSoon(k)
		}
		return nil
	})
	if err == nil {
		u.block.Store(int64(granted))
		u.remaining.Add(int64(granted))
	}
	return err
}

// updateUsage changes a usage record, again when it lost a race.
func (s *Service) updateUsage(ctx context.Context, u *usage, update func(*usageRecord) error) error {
	path := pathUsage(u.ns.ID, u.key, u.number)
	for range maxAttempts {
		d, err := s.domainOf(ctx, u.ns)
		if err != nil {
			return err
		}
		record, err := read[usageRecord](ctx, s, d, path)
		if errors.Is(err, store.ErrNotFound) {
			return dataLoss(path, err)
		}
		if err != nil {
			return err
		}
		tx := &transaction{}
		if err := update(&record.value); err != nil {
			return err
		}
		tx.put(d, path, record.revision, record.value)
		if err = tx.commit(ctx, s); !errors.Is(err, store.ErrConflict) {
			return storeError(err)
		}
	}
	return storeError(store.ErrConflict)
}

// release gives back what is left of a block before a version leaves memory.
// Uses that race with it find nothing left and reserve anew.
func (s *Service) release(ctx context.Context, u *usage) error {
	u.reserve.Lock()
	defer u.reserve.Unlock()
	left := u.remaining.Swap(0)
	for left < 0 { // a use that is about to put back what it took too much
		left += u.remaining.Swap(0)
	}
	if left <= 0 {
		return nil
	}
	return s.updateUsage(ctx, u, func(r *usageRecord) error {
		r.Reserved -= uint64(left)
		return nil
	})
}

// flushDirty stores the times of last use that are not stored yet.
func (s *Service) flushDirty(ctx context.Context) error {
	s.dirty.lock.Lock()
	list := s.dirty.list
	s.dirty.list = nil
	s.dirty.lock.Unlock()
	var failed error
	for i, u := range list {
		err := s.updateUsage(ctx, u, func(r *usageRecord) error {
			r.LastUsed = max(r.LastUsed, u.lastUsed.Load())
			return nil
		})
		if code := CodeOf(err); err != nil && code != DataLoss && code != FailedPrecondition { // damaged, or deleted with its namespace
			failed = err
			s.dirty.lock.Lock()
			s.dirty.list = append(s.dirty.list, list[i:]...)
			s.dirty.lock.Unlock()
			break
		}
	}
	return failed
}

// flush stores what only memory knows, before the service closes.
func (s *Service) flush(ctx context.Context) error {
	err := s.flushDirty(ctx)
	for _, v := range s.cache.versions.All() {
		err = errors.Join(err, s.release(ctx, v.usage))
	}
	return err
}

// counts tells whether an algorithm's uses are bounded by its purpose: what
// encrypts, signs or MACs can be.
func counts(a *keyring.Algorithm) bool {
	switch a.Purpose() {
	case keyring.PurposeEncryptDecrypt, keyring.PurposeSignVerify, keyring.PurposeMAC:
		return true
	}
	return false
}
