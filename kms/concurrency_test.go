package kms

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/store"
)

// crowd uses and changes a few keys from many goroutines and remembers what it
// was promised.
type crowd struct {
	*testInstallation
	ctx  context.Context // ends the crowd
	lock sync.Mutex
	// What was acknowledged.
	sealed   []secret
	versions map[uint32]bool           // that rotations of busyKey made
	uses     map[string]map[uint32]int // by key and version
	disabled map[uint32]bool           // versions of busyKey that may be disabled
	counts   map[string]int            // by what was done
	failures []error
}

type secret struct {
	key        string
	version    uint32
	ciphertext []byte
	text       string
}

const (
	busyKey    = "busy"    // rotated, disabled, enabled, made primary
	limitedKey = "limited" // with max_uses
	nonceKey   = "nonce"   // with random 96-bit nonces
	goneKey    = "gone"    // deleted and restored
	nonceLimit = 2000
)

func (c *crowd) note(what string, err error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.counts[what]++
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && len(c.failures) < 20 {
		c.failures = append(c.failures, fmt.Errorf("%s: %w", what, err))
	}
}

func (c *crowd) encrypt() {
	key := []string{busyKey, limitedKey, nonceKey, goneKey}[rand.N(4)]
	text := fmt.Sprintf("%s %d", key, rand.Uint64())
	got, err := c.Encrypt(c.ctx, admin(), &EncryptRequest{Namespace: "pay", Key: key, Plaintext: []byte(text)})
	if key == goneKey && (CodeOf(err) == NotFound || CodeOf(err) == FailedPrecondition) {
		err = nil
		got.Version = 0
	}
	c.note("encrypt", err)
	if err != nil || got.Version == 0 {
		return
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	c.sealed = append(c.sealed, secret{key, got.Version, got.Ciphertext, text})
	if c.uses[key] == nil {
		c.uses[key] = map[uint32]int{}
	}
	c.uses[key][got.Version]++
}

func (c *crowd) decrypt() {
	c.lock.Lock()
	if len(c.sealed) == 0 {
		c.lock.Unlock()
		return
	}
	s := c.sealed[rand.N(len(c.sealed))]
	c.lock.Unlock()
	got, err := c.Decrypt(c.ctx, admin(), &DecryptRequest{Namespace: "pay", Ciphertext: s.ciphertext})
	c.lock.Lock()
	disabled := c.disabled[s.version]
	c.lock.Unlock()
	var e *Error
	switch {
	case err == nil && string(got.Plaintext) != s.text:
		err = fmt.Errorf("a wrong plaintext: %q, want %q", got.Plaintext, s.text)
	case errors.As(err, &e) && e.Reason == "VERSION_DISABLED" && s.key == busyKey && disabled:
		err = nil
	case errors.As(err, &e) && e.Reason == "KEY_DELETE_SCHEDULED" && s.key == goneKey:
		err = nil
	}
	c.note("decrypt", err)
}

func (c *crowd) rotate() {
	v, err := c.RotateKey(c.ctx, admin(), KeyRef{Namespace: "pay", Key: busyKey})
	c.note("rotate", err)
	if err != nil {
		return
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.versions[v.Version] {
		c.failures = append(c.failures, fmt.Errorf("version %d was made twice", v.Version))
	}
	c.versions[v.Version] = true
}

// changeVersion disables, enables or makes primary some version. It may find
// the version in a state that does not allow it.
func (c *crowd) changeVersion() {
	k, err := c.GetKey(c.ctx, admin(), KeyRef{Namespace: "pay", Key: busyKey})
	if err != nil {
		c.note("describe", err)
		return
	}
	q := VersionRef{Namespace: "pay", Key: busyKey, Version: 1 + rand.Uint32N(k.LatestVersion)}
	what := []string{"disable", "enable", "set primary"}[rand.N(3)]
	switch what {
	case "disable":
		c.lock.Lock()
		c.disabled[q.Version] = true
		c.lock.Unlock()
		err = second(c.DisableVersion(c.ctx, admin(), q))
	case "enable":
		err = second(c.EnableVersion(c.ctx, admin(), q))
	default:
		err = second(c.SetPrimaryVersion(c.ctx, admin(), q))
	}
	if CodeOf(err) == FailedPrecondition {
		err = nil
	}
	c.note(what, err)
}

// remove deletes and restores goneKey; it is the only one to do so.
func (c *crowd) remove(id ID) {
	err := second(c.DeleteKey(c.ctx, admin(), DestroyRequest{Namespace: "pay", Key: goneKey}))
	if err == nil {
		err = second(c.RestoreKey(c.ctx, admin(), RestoreKeyRequest{Namespace: "pay", ID: id}))
	}
	c.note("remove", err)
}

func (c *crowd) writePolicy() {
	q := PutPolicyRequest{Name: fmt.Sprint("p", rand.N(3)), Text: `permit (principal == User::"x", action, resource);`}
	err := second(c.PutPolicy(c.ctx, admin(), q))
	if err == nil {
		err = c.DeletePolicy(c.ctx, admin(), PolicyRef{Name: q.Name})
	}
	if CodeOf(err) == NotFound {
		err = nil
	}
	c.note("policy", err)
}

func (c *crowd) until(done context.Context, group *sync.WaitGroup, n int, f func()) {
	for range n {
		group.Go(func() {
			for done.Err() == nil {
				f()
			}
		})
	}
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.close()
	in.config.CacheBytes, in.config.NonceLimit, in.config.JobInterval = 6*versionCost, nonceLimit, 5*time.Millisecond
	in.open()
	in.namespace("pay")
	in.key("pay", busyKey, "")
	in.key("pay", nonceKey, "AES_256_GCM")
	gone := in.key("pay", goneKey, "")
	must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: limitedKey, Rotation: Rotation{MaxUses: MinRotationUses}}))
	c := &crowd{testInstallation: in, ctx: t.Context(), versions: map[uint32]bool{}, disabled: map[uint32]bool{},
		uses: map[string]map[uint32]int{}, counts: map[string]int{}}
	done, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var group sync.WaitGroup
	c.until(done, &group, 6, c.encrypt)
	c.until(done, &group, 6, c.decrypt)
	c.until(done, &group, 2, c.rotate)
	c.until(done, &group, 3, c.changeVersion)
	c.until(done, &group, 1, func() { c.remove(gone.ID) })
	c.until(done, &group, 2, c.writePolicy)
	began := time.Now()
	c.until(done, &group, 1, func() {
		if time.Sleep(100 * time.Millisecond); c.enough() && time.Since(began) > 2*time.Second {
			stop()
		}
	})
	group.Wait()
	t.Logf("done: %v", c.counts)
	for _, err := range c.failures {
		t.Error(err)
	}
	c.wantPromisesKept()
	c.wantCacheCounted()
	if !c.enough() {
		t.Errorf("too little was done to prove anything: %v, versions used up: %v", c.counts, c.uses[limitedKey])
	}
}

// enough tells whether everything was done often, as much as the machine allows.
func (c *crowd) enough() bool {
	c.lock.Lock()
	defer c.lock.Unlock()
	for _, n := range c.counts {
		if n < 20 {
			return false
		}
	}
	return len(c.counts) == 8 && len(c.uses[limitedKey]) >= 3 && len(c.uses[nonceKey]) > 0
}

func (c *crowd) wantPromisesKept() {
	t := c.t
	k := must[Key](t)(c.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: busyKey}))
	if int(k.LatestVersion) != len(c.versions)+1 {
		t.Errorf("%d rotations made version %d the latest", len(c.versions), k.LatestVersion)
	}
	for number := range k.LatestVersion {
		must[KeyVersion](t)(c.EnableVersion(t.Context(), admin(), VersionRef{Namespace: "pay", Key: busyKey, Version: number + 1}))
	}
	for _, s := range c.sealed {
		c.wantOpens("pay", s.ciphertext, s.text)
	}
	for version, n := range c.uses[limitedKey] {
		if n > MinRotationUses {
			t.Errorf("version %d with %d uses was used %d times", version, MinRotationUses, n)
		}
	}
	for _, key := range []string{limitedKey, nonceKey} {
		for version, n := range c.uses[key] {
			if reserved := c.reserved(key, version); uint64(n) > reserved || reserved > nonceLimit {
				t.Errorf("version %d of %s was used %d times, %d are recorded", version, key, n, reserved)
			}
		}
	}
}

func (c *crowd) reserved(name string, version uint32) uint64 {
	ns := must[*namespace](c.t)(c.findNamespace(c.t.Context(), "pay"))
	k := must[*key](c.t)(c.findKey(c.t.Context(), ns, name))
	record := must[stored[usageRecord]](c.t)(read[usageRecord](c.t.Context(), c.Service, ns.domain.state.Load().opened, pathUsage(ns.ID, k.ID, version)))
	return record.value.Reserved
}

// wantCacheCounted checks the account of the cache's size against its content.
func (c *crowd) wantCacheCounted() {
	c.stopJobs()
	var bytes int64
	for id, k := range c.cache.keys.All() {
		bytes += keyCost
		if named, ok := c.cache.names.Load(keyName{k.ns.ID, k.Name}); k.State == KeyActive && (!ok || named.ID != id) {
			c.t.Errorf("key %s is cached, but not under its name", k.Name)
		}
	}
	for _, v := range c.cache.versions.All() {
		bytes += v.size
	}
	if counted := c.cache.bytes.Load(); counted != bytes {
		c.t.Errorf("the cache counts %d bytes, it has %d", counted, bytes)
	}
	if names, keys := c.cache.names.Len(), c.cache.keys.Len(); names > keys {
		c.t.Errorf("%d names are cached for %d keys", names, keys)
	}
}

// Two callers that change the same thing at once both get a true answer.
func TestCreateAtOnce(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	for round := range 20 {
		name := fmt.Sprint("key", round)
		errs := make(chan error, 4)
		for range 4 {
			go func() {
				errs <- second(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: name}))
			}()
		}
		made := 0
		for range 4 {
			switch err := <-errs; CodeOf(err) {
			case OK:
				made++
			case AlreadyExists:
			default:
				t.Error(err)
			}
		}
		if made != 1 {
			t.Errorf("%d keys of one name were made", made)
		}
	}
	page := must[store.Page](t)(in.store.List(t.Context(), prefixKey, "", 0))
	if len(page.Records) != 20 {
		t.Errorf("%d keys are stored, want 20", len(page.Records))
	}
}

// The same mutation sent twice at once happens once.
func TestIdempotentAtOnce(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	for round := range 10 {
		versions := make(chan uint32, 4)
		for range 4 {
			go func() {
				v, err := in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card", Idempotency: fmt.Sprint(round)})
				if err != nil {
					t.Error(err)
				}
				versions <- v.Version
			}()
		}
		for range 4 {
			if v := <-versions; v != uint32(round+2) {
				t.Errorf("round %d made version %d", round, v)
			}
		}
	}
}

// A caller that found a key just before another version was made primary, and
// the old one disabled, is served by the new primary version.
func TestOvertakenByNewPrimary(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	ns := must[*namespace](t)(in.findNamespace(t.Context(), "pay"))
	found := must[*key](t)(in.findKey(t.Context(), ns, "card"))
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), ref("card", 1)))
	v, err := in.primaryToUse(t.Context(), &trace{start: in.now()}, found)
	if err != nil || v.number != 2 {
		t.Errorf("primaryToUse = %v, %v, want version 2", v, err)
	}
}

// A deleted key, which its id still finds, serves nothing.
func TestDeletedKeyServesNothing(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "live", "")
	id := idPrefix + in.key("pay", "dead", "").ID.String()
	sealed := in.encrypt("pay", "live", "secret")
	must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "dead"}))
	for _, operation := range []Operation{
		&EncryptRequest{Namespace: "pay", Key: id, Plaintext: []byte("x")},
		&GenerateDataKeyRequest{Namespace: "pay", Key: id},
		&GenerateDataKeyPairRequest{Namespace: "pay", Key: id, Algorithm: "ED25519"},
		&ReEncryptRequest{Namespace: "pay", Ciphertext: sealed, DestinationKey: id},
	} {
		wantCode(t, in.do(t.Context(), admin(), operation).Err, FailedPrecondition, "can be restored until")
	}
}
