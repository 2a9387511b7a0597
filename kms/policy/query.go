package policy

import (
	"net/netip"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
)

// query is a request in Cedar's terms: the caller's own, or as an ancestor of
// the caller would make it.
type query struct {
	request             *Request
	caller              *Caller
	action              *actionInfo
	principal, resource types.EntityUID
	groups              []types.EntityUID
	parents             []types.EntityUID // of the resource
}

// query supposes that caller makes the request. It is in the groups that its
// credentials claim and in those that are stored.
func (s *Set) query(r *Request, caller *Caller, action *actionInfo) *query {
	q := &query{request: r, caller: caller, action: action, principal: caller.uid()}
	stored := s.groups.of(q.principal)
	for _, group := range caller.Groups {
		if uid := groupUID(group); !slices.Contains(stored, uid) {
			q.groups = append(q.groups, uid)
		}
	}
	q.groups = append(q.groups, stored...)
	namespace := namespaceUID(r.Resource.Namespace)
	switch r.Resource.kind() {
	case onKey:
		q.resource = types.NewEntityUID(typeKey, types.String(r.Resource.Namespace+"/"+r.Resource.Key))
		q.parents = []types.EntityUID{namespace, systemUID()}
	case onNamespace:
		q.resource = namespace
		q.parents = []types.EntityUID{systemUID()}
	default:
		q.resource = systemUID()
	}
	return q
}

// resourceTerms returns the entities by which the index knows the resource.
func (q *query) resourceTerms() []types.EntityUID {
	return append([]types.EntityUID{{}, q.resource}, q.parents...)
}

// principalTerms returns the entities by which the index knows the principal.
func (q *query) principalTerms() []types.EntityUID {
	return append([]types.EntityUID{{}, {Type: q.principal.Type}, q.principal}, q.groups...)
}

// cedarRequest builds the request, its context only where it is looked at.
func (q *query) cedarRequest(needed reads) types.Request {
	request := types.Request{Principal: q.principal, Action: q.action.entity.UID, Resource: q.resource}
	if needed.context {
		request.Context = q.context()
	}
	return request
}

func encryptionContextUID() types.EntityUID {
	return types.NewEntityUID(typeEncryptionContext, "request")
}

func (q *query) context() types.Record {
	context := types.RecordMap{
		"time":              types.NewDatetime(q.request.Time),
		"method":            types.String(q.caller.Method),
		"encryptionContext": encryptionContextUID(),
	}
	if source := q.request.Caller.Source; source.IsValid() {
		context["source"] = ipAddr(source)
	}
	return types.NewRecord(context)
}

// ipAddr returns the address as Cedar compares it: IPv4 in its own form also
// when it came in over an IPv6 socket, and without a zone.
func ipAddr(source netip.Addr) types.IPAddr {
	source = source.Unmap().WithZone("")
	return types.IPAddr(netip.PrefixFrom(source, source.BitLen()))
}

// entities is all that exists while one request is decided.
type entities struct {
	principal, action, resource, encryptionContext types.Entity
}

var _ types.EntityGetter = (*entities)(nil)

// Get implements types.EntityGetter.
func (e *entities) Get(uid types.EntityUID) (types.Entity, bool) {
	for _, entity := range [...]*types.Entity{&e.resource, &e.principal, &e.action, &e.encryptionContext} {
		if entity.UID == uid {
			return *entity, true
		}
	}
	return types.Entity{}, false
}

// entities builds the entities, their attributes only where they are looked at.
func (q *query) entities(needed reads) *entities {
	all := &entities{
		principal: types.Entity{UID: q.principal, Parents: types.NewEntityUIDSet(q.groups...)},
		resource:  types.Entity{UID: q.resource, Parents: types.NewEntityUIDSet(q.parents...)},
		action:    q.action.entity,
	}
	if needed.attributes {
		all.principal.Attributes = q.principalAttributes()
		all.resource.Attributes = q.resourceAttributes()
		all.resource.Tags = tags(q.request.Resource.Labels)
	}
	if needed.context {
		all.encryptionContext = types.Entity{UID: encryptionContextUID(), Tags: tags(q.request.EncryptionContext)}
	}
	return all
}

func (q *query) principalAttributes() types.Record {
	return types.NewRecord(types.RecordMap{
		"name":        types.String(q.caller.ID),
		"trustDomain": types.String(q.caller.TrustDomain),
	})
}

func (q *query) resourceAttributes() types.Record {
	resource := q.request.Resource
	switch resource.kind() {
	case onKey:
		return types.NewRecord(types.RecordMap{
			"name":       types.String(resource.Key),
			"purpose":    types.String(resource.Purpose),
			"algorithm":  types.String(resource.Algorithm),
			"protection": types.String(resource.Protection),
			"exportable": types.Boolean(resource.Exportable),
		})
	case onNamespace:
		return types.NewRecord(types.RecordMap{"name": types.String(resource.Namespace)})
	default:
		return types.Record{}
	}
}

func tags(pairs map[string]string) types.Record {
	record := make(types.RecordMap, len(pairs))
	for name, value := range pairs {
		record[types.String(name)] = types.String(value)
	}
	return types.NewRecord(record)
}
