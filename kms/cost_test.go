package kms

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

// countingStore counts the calls that reach a store, but for those that count
// keys, look for orphans and follow the head in the background.
type countingStore struct {
	store.Store
	lock                          sync.Mutex
	gets, lists, commits, changes int
}

func (c *countingStore) count(gets, lists, commits, changes int) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.gets += gets
	c.lists += lists
	c.commits += commits
	c.changes += changes
}

// openingCall marks the context that Open gets, and its jobs do not have.
type openingCall struct{}

func (c *countingStore) Get(ctx context.Context, key string) (store.Record, error) {
	if key != pathHead || ctx.Value(openingCall{}) != nil {
		c.count(1, 0, 0, 0)
	}
	return c.Store.Get(ctx, key)
}

func (c *countingStore) List(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
	if prefix != prefixKeyName && prefix != prefixKeyID && prefix != prefixOrphan {
		c.count(0, 1, 0, 0)
	}
	return c.Store.List(ctx, prefix, after, limit)
}

func (c *countingStore) Commit(ctx context.Context, txn store.Txn) (store.Revision, error) {
	c.count(0, 0, 1, len(txn.Puts)+len(txn.Deletes))
	return c.Store.Commit(ctx, txn)
}

// calls runs f and describes the calls of the store that it made.
func (c *countingStore) calls(f func()) string {
	c.lock.Lock()
	c.gets, c.lists, c.commits, c.changes = 0, 0, 0, 0
	c.lock.Unlock()
	f()
	c.lock.Lock()
	defer c.lock.Unlock()
	return fmt.Sprintf("%d gets, %d lists, %d commits of %d changes", c.gets, c.lists, c.commits, c.changes)
}

const noCalls = "0 gets, 0 lists, 0 commits of 0 changes"

// openCounted opens the service anew over a counting store.
func (in *testInstallation) openCounted() (counted *countingStore, calls string, unwraps int) {
	in.t.Helper()
	in.close()
	before := in.device.unwraps
	c := in.parts()
	counted = &countingStore{Store: in.store}
	c.Store = counted
	ctx := context.WithValue(context.Background(), openingCall{}, true)
	calls = counted.calls(func() { in.Service = must[*Service](in.t)(Open(ctx, c)) })
	return counted, calls, in.device.unwraps - before
}

// What an operation costs does not depend on how many versions the key has.
func TestCostAgainstVersions(t *testing.T) {
	t.Parallel()
	const many = 500
	in := newInstallation(t)
	in.namespace("pay")
	algorithms := map[string]string{"xaes": "XAES_256_GCM", "counted": "AES_256_GCM"}
	sealed := map[string][]byte{}
	for key, algorithm := range algorithms {
		in.key("pay", key, algorithm)
		sealed[key] = in.encrypt("pay", key, "first")
	}
	counted, _, _ := in.openCounted()
	costs := map[string]map[string]string{}
	measure := func(versions string) {
		for key := range algorithms { // what is measured begins with a known key
			must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: key}))
			encrypt := func() { in.encrypt("pay", key, "x") }
			decrypt := func() { in.wantOpens("pay", sealed[key], "first") }
			rotate := func() { must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: key})) }
			costs[versions+key] = map[string]string{
				"rotation":      counted.calls(rotate),
				"first encrypt": counted.calls(encrypt),
				"first decrypt": counted.calls(decrypt),
				"encrypt":       counted.calls(encrypt),
				"decrypt":       counted.calls(decrypt),
			}
		}
	}
	measure("few ")
	var group sync.WaitGroup
	for key := range algorithms {
		group.Go(func() {
			for range many {
				if _, err := in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: key}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	counted, _, _ = in.openCounted()
	measure("many ")
	for key := range algorithms {
		few, many := costs["few "+key], costs["many "+key]
		for what, cost := range few {
			if cost != many[what] {
				t.Errorf("%s: %s costs %s with few versions, %s with many", key, what, cost, many[what])
			}
		}
		if few["encrypt"] != noCalls || few["decrypt"] != noCalls {
			t.Errorf("%s: a warm encrypt costs %s, a warm decrypt %s", key, few["encrypt"], few["decrypt"])
		}
		if !strings.HasSuffix(few["rotation"], "1 commits of 4 changes") {
			t.Errorf("%s: a rotation costs %s", key, few["rotation"])
		}
	}
}

// Opening costs one call of the device and the same reads however many
// namespaces and keys there are.
func TestCostOfOpening(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	_, few, unwraps := in.openCounted()
	if unwraps != 1 {
		t.Errorf("opening an empty installation unwrapped %d secrets", unwraps)
	}
	for n := range 20 {
		ns := fmt.Sprint("ns", n)
		in.namespace(ns)
		for n := range 5 {
			in.key(ns, fmt.Sprint("key", n), "")
		}
	}
	counted, many, unwraps := in.openCounted()
	if unwraps != 1 || many != few {
		t.Errorf("opening unwraps %d secrets and costs %s; it was %s when there was nothing", unwraps, many, few)
	}
	before := in.device.unwraps
	for n := range 5 {
		in.encrypt("ns7", fmt.Sprint("key", n), "x")
	}
	if n := in.device.unwraps - before; n != 1 {
		t.Errorf("using five keys of a namespace unwrapped %d secrets", n)
	}
	first := counted.calls(func() { in.encrypt("ns8", "key0", "x") })
	second := counted.calls(func() { in.encrypt("ns9", "key0", "x") })
	if first != second {
		t.Errorf("the first use of a namespace costs %s, of another %s", first, second)
	}
}

// What came to nothing is not looked for again in the store for each version:
// finding due jobs costs the same however many keys have none.
func TestCostOfJobs(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	counted, _, _ := in.openCounted()
	run := func() string {
		return counted.calls(func() {
			if err := in.runDue(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	none := run()
	for n := range 30 {
		must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: fmt.Sprint("key", n), Rotation: Rotation{Period: MaxRotationPeriod}}))
	}
	if some := run(); some != none {
		t.Errorf("a round without due jobs costs %s, with no key %s", some, none)
	}
}
