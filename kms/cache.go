package kms

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"unique"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/internal/cow"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// What a key and a version cost in memory beside their material, roughly, in bytes.
const (
	keyCost     = 1200
	versionCost = 600
)

// cache holds keys and versions in use. Entries are immutable snapshots: a
// change or an eviction drops them and the next use loads them anew, all under
// the key's lock, so that nothing stale is ever put back.
type cache struct {
	names    *cow.Map[keyName, *key]
	keys     *cow.Map[ID, *key]
	versions *cow.Map[versionID, *version]
	bytes    atomic.Int64
	limit    int64
}

type keyName struct {
	namespace ID
	name      string
}

type versionID struct {
	key    ID
	number uint32
}

// key is a snapshot of a key's record.
type key struct {
	keyRecord
	ns        *namespace
	revision  store.Revision
	algorithm *keyring.Algorithm
	settings  transit.Settings // of VAULT framing
	resource  policy.Resource
	primary   atomic.Pointer[version] // loaded on first use
	recent    atomic.Bool
}

// version is a snapshot of a version's record with its material ready for use: by the
// key's framing ready or vault, neither unless ENABLED.
type version struct {
	number  uint32
	state   VersionState
	ready   *keyring.Version
	vault   *transit.Version
	usage   *usage
	size    int64
	recent  atomic.Bool
	removed atomic.Bool
}

func newCache(limit int64) cache {
	return cache{names: cow.New[keyName, *key](), keys: cow.New[ID, *key](), versions: cow.New[versionID, *version](), limit: limit}
}

func (c *cache) addKey(k *key) {
	c.keys.Store(k.ID, k)
	if k.State == KeyActive {
		c.names.Store(keyName{k.ns.ID, k.Name}, k)
	}
	c.bytes.Add(keyCost)
}

// dropKey forgets a key, not its versions.
func (c *cache) dropKey(k *key) {
	name := keyName{k.ns.ID, k.Name}
	if named, ok := c.names.Load(name); ok && named.ID == k.ID {
		c.names.Delete(name)
	}
	if _, ok := c.keys.Load(k.ID); ok {
		c.keys.Delete(k.ID)
		c.bytes.Add(-keyCost)
	}
}

func (c *cache) addVersion(id ID, v *version) {
	c.versions.Store(versionID{id, v.number}, v)
	c.bytes.Add(v.size)
}

func (c *cache) dropVersion(id ID, number uint32) {
	if v, ok := c.versions.Load(versionID{id, number}); ok && v.removed.CompareAndSwap(false, true) {
		c.versions.Delete(versionID{id, number})
		c.bytes.Add(-v.size)
	}
}

// lock returns the lock that serialises the loading and changing of a key.
func (s *Service) lock(id ID) *sync.Mutex { return &s.locks[uint64(id)%lockStripes] }

// findKey returns the key that a caller named in a namespace: by its name, or by
// "id:" and its id.
func (s *Service) findKey(ctx context.Context, ns *namespace, name string) (*key, error) {
	if k, ok := s.cache.names.Load(keyName{ns.ID, name}); ok {
		if !k.recent.Load() {
			k.recent.Store(true)
		}
		return k, nil
	}
	if text, ok := strings.CutPrefix(name, idPrefix); ok {
		id, err := ParseID(text)
		if err != nil {
			return nil, err
		}
		return s.findKeyByID(ctx, ns, id)
	}
	if err := checkName("key", name); err != nil {
		return nil, err
	}
	return s.loadKeyByName(ctx, ns, name)
}

func errNoKey(ns *namespace, name string) error {
	return notFound("KEY_NOT_FOUND", "key %q does not exist in namespace %q; ListKeys names those there are", clip(name), ns.Name)
}

func (s *Service) loadKeyByName(ctx context.Context, ns *namespace, name string) (*key, error) {
	id, err := s.idOf(ctx, ns, name)
	if err != nil {
		return nil, err
	}
	lock := s.lock(id)
	lock.Lock()
	defer lock.Unlock()
	// The name's id changes only under that id's lock: look again under it.
	if again, err := s.idOf(ctx, ns, name); err != nil || again != id {
		return nil, firstError(errors.Join(err, errNoKey(ns, name)))
	}
	k, err := s.loadKey(ctx, ns, id)
	if CodeOf(err) == NotFound { // a name is never left without its key
		return nil, dataLoss(pathKey(ns.ID, id), err)
	}
	return k, err
}

func (s *Service) idOf(ctx context.Context, ns *namespace, name string) (ID, error) {
	d, err := s.domainOf(ctx, ns)
	if err != nil {
		return 0, err
	}
	record, err := read[keyNameRecord](ctx, s, d, pathKeyName(ns.ID, name))
	if errors.Is(err, store.ErrNotFound) {
		return 0, errNoKey(ns, name)
	}
	return record.value.ID, err
}

func (s *Service) findKeyByID(ctx context.Context, ns *namespace, id ID) (*key, error) {
	if k, ok := s.cache.keys.Load(id); ok {
		if k.ns.ID != ns.ID {
			return nil, errNoKey(ns, idPrefix+id.String())
		}
		if !k.recent.Load() {
			k.recent.Store(true)
		}
		return k, nil
	}
	// The HSM may take its time: not under a lock that other keys share.
	if _, err := s.domainOf(ctx, ns); err != nil {
		return nil, err
	}
	lock := s.lock(id)
	lock.Lock()
	defer lock.Unlock()
	return s.loadKey(ctx, ns, id)
}

// loadKey reads a key's record; the caller holds the key's lock.
func (s *Service) loadKey(ctx context.Context, ns *namespace, id ID) (*key, error) {
	if k, ok := s.cache.keys.Load(id); ok && k.ns.ID == ns.ID {
		return k, nil
	}
	d, err := s.domainOf(ctx, ns)
	if err != nil {
		return nil, err
	}
	record, err := read[keyRecord](ctx, s, d, pathKey(ns.ID, id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, errNoKey(ns, idPrefix+id.String())
	}
	if err != nil {
		return nil, err
	}
	k, err := newKey(ns, record)
	if err != nil {
		return nil, err
	}
	s.cache.addKey(k)
	return k, nil
}

func newKey(ns *namespace, record stored[keyRecord]) (*key, error) {
	r := record.value
	algorithm, ok := keyring.Lookup(r.Algorithm)
	settings, framed := r.settings()
	if !ok || !framed || r.Protection != Software && r.Protection != HSMLevel {
		return nil, precondition("UNKNOWN_KEY_KIND", "key %s was made by a newer release (%s, %s, %s); use that release", r.Name, r.Algorithm, r.Framing, r.Protection)
	}
	r.Namespace, r.Algorithm, r.Purpose = ns.Name, algorithm.Name(), one(r.Purpose)
	r.Protection, r.State, r.Framing = one(r.Protection), one(r.State), one(r.Framing)
	return &key{keyRecord: r, ns: ns, revision: record.revision, algorithm: algorithm, settings: settings,
		resource: policy.Resource{Namespace: ns.Name, Key: r.Name, Labels: r.Labels, Purpose: string(r.Purpose),
			Algorithm: r.Algorithm, Protection: string(r.Protection), Exportable: r.Exportable, Revision: uint64(record.revision)}}, nil
}

// one returns a text of which there are few with the memory of the others that are the same.
func one[T ~string](text T) T { return T(unique.Make(string(text)).Value()) }

// primaryOf returns the key's primary version, loaded on first use.
func (s *Service) primaryOf(ctx context.Context, k *key) (*version, error) {
	if v := k.primary.Load(); v != nil && !v.removed.Load() {
		return v, nil
	}
	v, err := s.findVersion(ctx, k, k.PrimaryVersion)
	if err == nil {
		k.primary.Store(v)
	}
	return v, err
}

// findVersion returns a version of a key; number 0 is the primary one.
func (s *Service) findVersion(ctx context.Context, k *key, number uint32) (*version, error) {
	if number == 0 {
		number = k.PrimaryVersion
	}
	v, ok := s.cache.versions.Load(versionID{k.ID, number})
	if !ok {
		lock := s.lock(k.ID)
		lock.Lock()
		defer lock.Unlock()
		var err error
		if v, err = s.loadVersion(ctx, k, number); err != nil {
			return nil, err
		}
	}
	if !v.recent.Load() {
		v.recent.Store(true)
	}
	return v, nil
}

// loadVersion reads a version and opens its material; the caller holds the key's lock.
func (s *Service) loadVersion(ctx context.Context, k *key, number uint32) (*version, error) {
	if v, ok := s.cache.versions.Load(versionID{k.ID, number}); ok {
		return v, nil
	}
	before, err := s.domainOf(ctx, k.ns)
	if err != nil {
		return nil, err
	}
	record, err := s.readVersion(ctx, k, number)
	if err != nil {
		return nil, err
	}
	v := &version{number: number, state: record.value.State, size: versionCost, usage: newUsage(k, number)}
	if v.state == Enabled {
		if err := s.openVersion(ctx, k, before, record.value, v); err != nil {
			return nil, err
		}
	}
	s.cache.addVersion(k.ID, v)
	return v, nil
}

// openVersion makes a version ready for use.
func (s *Service) openVersion(ctx context.Context, k *key, d *domain.Domain, record versionRecord, v *version) (err error) {
	switch {
	case k.Framing == FramingVault:
		if v.vault, err = s.openTransit(ctx, k, d, record); err == nil {
			v.size += int64(v.vault.MemorySize())
		}
		return err
	case k.Protection == HSMLevel:
		v.ready, err = s.openObject(k, record)
	default:
		v.ready, err = s.openMaterial(ctx, k, d, record)
	}
	if err == nil {
		v.size += int64(v.ready.MemorySize())
	}
	return err
}

func (s *Service) readVersion(ctx context.Context, k *key, number uint32) (stored[versionRecord], error) {
	d, err := s.domainOf(ctx, k.ns)
	if err != nil {
		return stored[versionRecord]{}, err
	}
	record, err := read[versionRecord](ctx, s, d, pathVersion(k.ns.ID, k.ID, number))
	if errors.Is(err, store.ErrNotFound) {
		if number <= k.LatestVersion && number > 0 && !k.trimmed(number) {
			return record, dataLoss(pathVersion(k.ns.ID, k.ID, number), err)
		}
		return record, notFound("VERSION_NOT_FOUND", "version %d of key %s/%s does not exist; its latest is %d", number, k.ns.Name, k.Name, k.LatestVersion)
	}
	return record, err
}

// openMaterial opens a version's material. d was the namespace's domain before
// the record was read, so it opens all that was sealed until then; what was sealed
// since, the domain of now does.
func (s *Service) openMaterial(ctx context.Context, k *key, d *domain.Domain, record versionRecord) (*keyring.Version, error) {
	material, err := s.unsealMaterial(ctx, k, d, record)
	if err != nil {
		return nil, err
	}
	defer material.Wipe()
	ready, err := keyring.NewVersion(k.algorithm, uint64(k.ID), record.Version, material)
	if errors.Is(err, keyring.ErrNotFIPS) {
		return nil, precondition("NOT_FIPS", "algorithm %s is not allowed while FIPS 140-3 mode is enforced", k.Algorithm)
	}
	return ready, err
}

// unsealMaterial is openMaterial for who needs the material itself.
func (s *Service) unsealMaterial(ctx context.Context, k *key, d *domain.Domain, record versionRecord) (keyring.Material, error) {
	place := materialPlace(k.ns.ID, k.ID, record.Version, k.Algorithm)
	secret, err := d.Open(place, record.Material)
	if errors.Is(err, domain.ErrNewer) {
		if d, err = s.domainOf(ctx, k.ns); err != nil {
			return keyring.Material{}, err
		}
		secret, err = d.Open(place, record.Material)
	}
	if err != nil {
		return keyring.Material{}, dataLoss(pathVersion(k.ns.ID, k.ID, record.Version), err)
	}
	return keyring.NewMaterial(secret), nil
}

// materialPlace is what sealed material is bound to.
func materialPlace(ns, key ID, number uint32, algorithm string) string {
	return "material " + pathVersion(ns, key, number) + " " + algorithm
}

// evict makes room when the cache is over its limit: what was not used since the
// last time goes first. Only the jobs' goroutine calls it.
func (s *Service) evict(ctx context.Context) {
	for pass := 0; pass < 2 && s.cache.bytes.Load() > s.cache.limit; pass++ {
		s.evictUnused(ctx, s.cache.limit*9/10)
	}
}

func (s *Service) evictUnused(ctx context.Context, target int64) {
	for id, v := range s.cache.versions.All() {
		if s.cache.bytes.Load() <= target {
			return
		}
		if !v.recent.Swap(false) {
			s.tryLocked(id.key, func() { s.evictVersion(ctx, id, v) })
		}
	}
	for _, k := range s.cache.keys.All() {
		if s.cache.bytes.Load() <= target {
			return
		}
		if !k.recent.Swap(false) {
			s.tryLocked(k.ID, func() { s.cache.dropKey(k) })
		}
	}
}

func (s *Service) evictVersion(ctx context.Context, id versionID, v *version) {
	if s.release(ctx, v.usage) == nil {
		s.cache.dropVersion(id.key, id.number)
	}
}

// tryLocked runs f under a key's lock, unless the key is being changed or loaded:
// then it is in use anyway.
func (s *Service) tryLocked(key ID, f func()) {
	lock := s.lock(key)
	if lock.TryLock() {
		defer lock.Unlock()
		f()
	}
}
