package policy

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync/atomic"
)

// cacheSlots bounds the decisions that a Set remembers; a power of two.
const cacheSlots = 1 << 14

// cache remembers decisions that depend on nothing but principal, action and
// resource. It is a hash table of fixed size in which a decision may stand in
// two places and replaces whatever stood there; readers take no lock.
type cache struct {
	seed  maphash.Seed
	slots []atomic.Pointer[remembered]
	kept  atomic.Pointer[Caller] // of the last decision: most are about few callers, which need one copy
}

// remembered is one decision with everything that it depended on.
type remembered struct {
	caller    *Caller // a copy; it never changes
	action    Action
	namespace string
	key       string
	revision  uint64
	// attributes of the resource, where a policy that can apply looked at any.
	// They are compared although revision stands for them, so that a revision
	// that was forgotten cannot keep a decision alive.
	attributes *Resource
	decision   Decision
}

func newCache() *cache {
	return &cache{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[remembered], cacheSlots)}
}

// get returns the decision remembered for the request, if any. It does not
// allocate.
func (c *cache) get(r *Request) (Decision, bool) {
	if r.Resource.Revision == 0 {
		return Decision{}, false
	}
	first, second := c.places(r)
	for _, slot := range [...]*atomic.Pointer[remembered]{first, second} {
		if found := slot.Load(); found != nil && found.answers(r) {
			return found.decision, true
		}
	}
	return Decision{}, false
}

// put remembers a decision about a request whose candidates read no context.
func (c *cache) put(r *Request, attributes bool, d Decision) {
	if r.Resource.Revision == 0 {
		return
	}
	entry := &remembered{
		caller:    c.keep(r.Caller),
		action:    r.Action,
		namespace: r.Resource.Namespace,
		key:       r.Resource.Key,
		revision:  r.Resource.Revision,
		decision:  d,
	}
	if attributes {
		resource := *r.Resource
		resource.Labels = maps.Clone(resource.Labels)
		entry.attributes = &resource
	}
	slot, second := c.places(r)
	if old := slot.Load(); old != nil && !old.answers(r) && second.Load() == nil {
		slot = second
	}
	slot.Store(entry)
}

// keep returns a copy of a caller.
func (c *cache) keep(caller *Caller) *Caller {
	if kept := c.kept.Load(); kept != nil && kept.sameClaims(caller) {
		return kept
	}
	kept := caller.clone()
	c.kept.Store(kept)
	return kept
}

// places returns the two slots in which the request's decision may stand.
func (c *cache) places(r *Request) (first, second *atomic.Pointer[remembered]) {
	var h maphash.Hash
	h.SetSeed(c.seed)
	h.WriteString(r.Caller.ID)
	h.WriteString(string(r.Action))
	h.WriteString(r.Resource.Namespace)
	h.WriteByte('/')
	h.WriteString(r.Resource.Key)
	sum := h.Sum64()
	return &c.slots[sum%cacheSlots], &c.slots[(sum>>32)%cacheSlots]
}

// answers reports whether the decision holds for the request: same principal
// with the same claims and bounds, same action, same state of the same resource.
func (m *remembered) answers(r *Request) bool {
	return m.action == r.Action &&
		m.key == r.Resource.Key &&
		m.namespace == r.Resource.Namespace &&
		m.revision == r.Resource.Revision &&
		m.caller.sameClaims(r.Caller) &&
		(m.attributes == nil || m.attributes.sameAttributes(r.Resource))
}

// clone returns a copy that shares nothing, for a claim may change in place.
func (c *Caller) clone() *Caller {
	if c == nil {
		return nil
	}
	copied := *c
	copied.Groups, copied.Actions, copied.Resources = slices.Clone(c.Groups), slices.Clone(c.Actions), slices.Clone(c.Resources)
	copied.Parent = c.Parent.clone()
	return &copied
}

// sameClaims compares all that a decision can see of a caller and its ancestors
// outside the context. The method is compared too: a token and a certificate of
// one name are told apart in explanations.
func (c *Caller) sameClaims(other *Caller) bool {
	for ; c != nil && other != nil; c, other = c.Parent, other.Parent {
		if !c.sameOwnClaims(other) {
			return false
		}
	}
	return c == other // whose line ended first has fewer ancestors
}

func (c *Caller) sameOwnClaims(other *Caller) bool {
	return c.ID == other.ID && c.Type == other.Type && c.Method == other.Method &&
		c.TrustDomain == other.TrustDomain && slices.Equal(c.Groups, other.Groups) &&
		slices.Equal(c.Actions, other.Actions) && slices.Equal(c.Resources, other.Resources)
}

// sameAttributes compares all that a policy can read of a resource.
func (r *Resource) sameAttributes(other *Resource) bool {
	return r.Purpose == other.Purpose && r.Algorithm == other.Algorithm &&
		r.Protection == other.Protection && r.Exportable == other.Exportable && maps.Equal(r.Labels, other.Labels)
}
