package policy

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/bench/cputime"
)

// stored counts the decisions a set remembers.
func stored(s *Set) int {
	n := 0
	for i := range s.cache.slots {
		if s.cache.slots[i].Load() != nil {
			n++
		}
	}
	return n
}

// TestNoStaleDecision asks one question so that its answer is remembered, then
// one that differs in a single thing that matters: the answer must be fresh.
func TestNoStaleDecision(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy string
		before func(*Request)
		after  func(*Request)
	}{
		{"other id", `permit (principal == Token::"app", action, resource);`, nil,
			func(r *Request) { r.Caller.ID = "app2" }},
		{"other type", `permit (principal == Token::"app", action, resource);`, nil,
			func(r *Request) { r.Caller.Type = User }},
		{"group lost", `permit (principal in Group::"ops", action, resource);`,
			func(r *Request) { r.Caller.Groups = []string{"ops"} }, func(r *Request) { r.Caller.Groups = nil }},
		{"group replaced", `permit (principal in Group::"ops", action, resource);`,
			func(r *Request) { r.Caller.Groups = []string{"dev", "ops"} }, func(r *Request) { r.Caller.Groups = []string{"dev", "qa"} }},
		{"group changed in place", `permit (principal in Group::"ops", action, resource);`,
			func(r *Request) { r.Caller.Groups = []string{"ops"} }, func(r *Request) { r.Caller.Groups[0] = "dev" }},
		{"other trust domain", `permit (principal, action, resource) when { principal.trustDomain == "prod" };`,
			func(r *Request) { r.Caller.TrustDomain = "prod" }, func(r *Request) { r.Caller.TrustDomain = "dev" }},
		{"expired since", permitAll,
			func(r *Request) { r.Caller.Expires = noon.Add(time.Minute) }, func(r *Request) { r.Time = noon.Add(time.Minute) }},
		{"expiry brought forward", permitAll,
			func(r *Request) { r.Caller.Expires = noon.Add(time.Minute) }, func(r *Request) { r.Caller.Expires = noon }},
		{"other action", `permit (principal, action == Action::"Encrypt", resource);`, nil,
			func(r *Request) { r.Action = Decrypt }},
		{"other key", `permit (principal, action, resource == Key::"payments/card");`, nil,
			func(r *Request) { r.Resource.Key = "card2" }},
		{"other namespace", `permit (principal, action, resource in Namespace::"payments");`, nil,
			func(r *Request) { r.Resource.Namespace = "hr" }},
		{"labels and revision", `permit (principal, action, resource) when { resource.hasTag("env") };`, nil,
			func(r *Request) { r.Resource.Labels, r.Resource.Revision = nil, 8 }},
		{"labels alone", `permit (principal, action, resource) when { resource.hasTag("env") };`, nil,
			func(r *Request) { r.Resource.Labels = nil }},
		{"label changed in place", `permit (principal, action, resource) when { resource.hasTag("env") && resource.getTag("env") == "prod" };`, nil,
			func(r *Request) { r.Resource.Labels["env"] = "dev" }},
		{"purpose", `permit (principal, action, resource) when { resource is Key && resource.purpose == "ENCRYPT_DECRYPT" };`, nil,
			func(r *Request) { r.Resource.Purpose = "MAC" }},
		{"protection", `permit (principal, action, resource) when { resource is Key && resource.protection == "SOFTWARE" };`, nil,
			func(r *Request) { r.Resource.Protection = "HSM" }},
		{"exportable", `forbid (principal, action, resource) when { resource is Key && resource.exportable }; permit (principal, action, resource);`, nil,
			func(r *Request) { r.Resource.Exportable = true }},
		{"algorithm", `permit (principal, action, resource) when { resource is Key && resource.algorithm like "X*" };`, nil,
			func(r *Request) { r.Resource.Algorithm = "AES_256_GCM" }},
		{"time", `permit (principal, action, resource) when { context.time < datetime("2026-11-23T12:00:01Z") };`, nil,
			func(r *Request) { r.Time = noon.Add(time.Hour) }},
		{"source", `permit (principal, action, resource) when { context has source && context.source.isLoopback() };`,
			func(r *Request) { r.Caller.Source = netip.MustParseAddr("127.0.0.1") },
			func(r *Request) { r.Caller.Source = netip.MustParseAddr("192.0.2.1") }},
		{"method", `permit (principal, action, resource) when { context.method == "token" };`, nil,
			func(r *Request) { r.Caller.Method = "mtls" }},
		{"encryption context", `permit (principal, action, resource) when { context.encryptionContext.hasTag("a") };`,
			func(r *Request) { r.EncryptionContext = map[string]string{"a": "1"} }, func(r *Request) { r.EncryptionContext = nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, r := newSet(t, test.policy), ask(Encrypt)
			if test.before != nil {
				test.before(r)
			}
			for range 2 {
				if got := set.Decide(r); got.Verdict != Allow {
					t.Fatalf("before: %+v, want allow", got)
				}
			}
			test.after(r)
			if got := set.Decide(r); got.Verdict != Deny {
				t.Errorf("after: %+v, want deny", got)
			}
		})
	}
}

// TestNewSetForgets checks that a decision does not outlive its policies.
func TestNewSetForgets(t *testing.T) {
	r := ask(Encrypt)
	if got := newSet(t, permitAll).Decide(r); got.Verdict != Allow {
		t.Fatalf("got %+v, want allow", got)
	}
	set, err := NewSet(4, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Decide(r); got.Verdict != Deny || got.Revision != 4 {
		t.Errorf("got %+v, want a denial at revision 4", got)
	}
}

func TestWhatIsRemembered(t *testing.T) {
	byTime := ` when { context.time > datetime("2020-01-01") };`
	for _, test := range []struct {
		name     string
		policies []string
		edit     func(*Request)
		want     int
	}{
		{"plain", []string{encrypterRow}, nil, 1},
		{"denial", nil, nil, 1},
		{"attributes", []string{`permit (principal, action, resource) when { resource.hasTag("env") };`}, nil, 1},
		{"context", []string{`permit (principal, action, resource)` + byTime}, nil, 0},
		{"context, in an unless", []string{`permit (principal, action, resource) unless { context.method == "x" };`}, nil, 0},
		{"context, of a forbid that does not hold", []string{permitAll, `forbid (principal, action, resource) when { context.method == "x" };`}, nil, 0},
		{"context, of another action", []string{permitAll, `permit (principal, action == Action::"Sign", resource)` + byTime}, nil, 1},
		{"context, of another principal", []string{permitAll, `permit (principal == User::"x", action, resource)` + byTime}, nil, 1},
		{"context, of another namespace", []string{permitAll, `permit (principal, action, resource in Namespace::"hr")` + byTime}, nil, 1},
		{"no revision", []string{encrypterRow}, func(r *Request) { r.Resource.Revision = 0 }, 0},
		{"refused before any policy", []string{permitAll}, func(r *Request) { r.Caller.Expires = noon }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, r := newSet(t, test.policies...), ask(Encrypt)
			if test.edit != nil {
				test.edit(r)
			}
			for range 3 {
				set.Decide(r)
			}
			if got := stored(set); got != test.want {
				t.Errorf("%d decisions remembered, want %d", got, test.want)
			}
		})
	}
}

func TestCacheIsBounded(t *testing.T) {
	set := newSet(t, permitAll)
	r := ask(Encrypt)
	for i := range 2 * cacheSlots {
		r.Resource.Key = fmt.Sprint("k", i)
		set.Decide(r)
	}
	if got := stored(set); got > cacheSlots || got < cacheSlots/2 || len(set.cache.slots) != cacheSlots {
		t.Errorf("%d decisions in %d slots, want at most %d and most of them used", got, len(set.cache.slots), cacheSlots)
	}
}

func TestRememberedDecisionDoesNotAllocate(t *testing.T) {
	set := newSet(t, encrypterRow, `forbid (principal, action, resource) when { resource.hasTag("frozen") };`)
	r := ask(Encrypt)
	r.Caller.Groups = []string{"a", "b"}
	set.Decide(r)
	if allocs := testing.AllocsPerRun(1000, func() { set.Decide(r) }); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

// TestConcurrentDecisions has many goroutines fill and read one cache; with
// -race it shows that they may.
func TestConcurrentDecisions(t *testing.T) {
	set := newSet(t, encrypterRow)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				r := ask(Encrypt, func(r *Request) { r.Resource.Key = fmt.Sprint("k", i%100) })
				want := Allow
				if worker%2 == 1 {
					r.Caller.ID, want = "other", Deny
				}
				if got := set.Decide(r); got.Verdict != want {
					t.Errorf("%s: %+v, want %v", r.Caller.ID, got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

// manyPolicies returns a set in which one policy concerns the usual request and
// n-1 concern other principals, keys and namespaces.
func manyPolicies(t testing.TB, n int) *Set {
	policies := []Policy{{Name: "app", Text: encrypterRow}}
	for i := range n - 1 {
		text := fmt.Sprintf(`permit (principal == Token::"app%d", action in Action::"encrypter", resource in Namespace::"payments");`, i)
		switch i % 3 {
		case 1:
			text = fmt.Sprintf(`permit (principal in Group::"g%d", action in Action::"signer", resource in Namespace::"ns%d") when { resource.hasTag("env") };`, i, i)
		case 2:
			text = fmt.Sprintf(`forbid (principal, action, resource == Key::"payments/k%d") when { context.method == "token" };`, i)
		}
		policies = append(policies, Policy{Name: fmt.Sprint("p", i), Text: text})
	}
	set, err := NewSet(1, policies, nil)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestIndexKeepsCandidatesFew shows why cost stays flat: of 10,000 policies only
// the one concerned is evaluated.
func TestIndexKeepsCandidatesFew(t *testing.T) {
	set, r := manyPolicies(t, 10_000), ask(Encrypt)
	q := set.query(r, r.Caller, theModel().actions[r.Action])
	if got := len(set.candidates(q).statements); got != 1 {
		t.Errorf("%d candidates, want 1", got)
	}
	if got := set.Decide(r); got.Verdict != Allow {
		t.Errorf("got %+v, want allow", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		set := manyPolicies(b, n)
		for name, revision := range map[string]uint64{"cached": 7, "uncached": 0} {
			b.Run(fmt.Sprintf("%s/policies=%d", name, n), func(b *testing.B) {
				r := ask(Encrypt)
				r.Resource.Revision = revision
				b.ReportAllocs()
				spent := cputime.Used()
				for b.Loop() {
					set.Decide(r)
				}
				cputime.Report(b, spent, b.N, "op")
			})
		}
	}
	for name, revision := range map[string]uint64{"cached": 7, "uncached": 0} {
		b.Run(name+"/child/policies=10000", func(b *testing.B) {
			set := manyPolicies(b, 10_000)
			r := ask(Encrypt, func(r *Request) {
				r.Resource.Revision, r.Caller.Parent = revision, narrow(token("app", nil), "encrypter", "payments")
			})
			b.ReportAllocs()
			for b.Loop() {
				set.Decide(r)
			}
		})
	}
	b.Run("context", func(b *testing.B) {
		set := newSet(b, `permit (principal, action, resource in Namespace::"payments") when { context.encryptionContext.hasTag("tenant") && resource.hasTag("env") };`)
		r := ask(Encrypt, func(r *Request) { r.EncryptionContext = map[string]string{"tenant": "a"} })
		b.ReportAllocs()
		for b.Loop() {
			set.Decide(r)
		}
	})
}

func BenchmarkNewSet(b *testing.B) {
	for b.Loop() {
		manyPolicies(b, 10_000)
	}
}

// TestAnswers checks the comparison alone: in the cache, most of these requests
// would be looked up elsewhere, and be mistaken only when two places collide.
func TestAnswers(t *testing.T) {
	var entry *remembered
	set := newSet(t, permitAll)
	set.Decide(ask(Encrypt))
	for i := range set.cache.slots {
		if found := set.cache.slots[i].Load(); found != nil {
			entry = found
		}
	}
	if entry == nil || !entry.answers(ask(Encrypt)) {
		t.Fatalf("entry %+v does not answer its own request", entry)
	}
	for name, edit := range map[string]func(*Request){
		"id":           func(r *Request) { r.Caller.ID = "app2" },
		"type":         func(r *Request) { r.Caller.Type = User },
		"groups":       func(r *Request) { r.Caller.Groups = []string{"ops"} },
		"method":       func(r *Request) { r.Caller.Method = "mtls" },
		"trust domain": func(r *Request) { r.Caller.TrustDomain = "dev" },
		"action":       func(r *Request) { r.Action = Decrypt },
		"namespace":    func(r *Request) { r.Resource.Namespace = "hr" },
		"key":          func(r *Request) { r.Resource.Key = "card2" },
		"revision":     func(r *Request) { r.Resource.Revision++ },
	} {
		if entry.answers(ask(Encrypt, edit)) {
			t.Errorf("answers a request with another %s", name)
		}
	}
}
