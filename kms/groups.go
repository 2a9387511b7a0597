package kms

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// Group describes a stored group of principals: what Group::"name" stands for in
// policies, besides the groups that credentials claim.
type Group struct {
	Name     string    `json:"name"`
	Members  []string  `json:"members,omitempty"` // such as User::"corp:CN=alice"
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
	Revision uint64    `json:"revision"` // the policy revision it was written in
}

func (g Group) compiled() policy.Group { return policy.Group{Name: g.Name, Members: g.Members} }

// PutGroupRequest writes a group. ConfirmLockout repeats its name where the change
// leaves nobody able to change policies, and is meant to.
type PutGroupRequest struct {
	Name           string
	Members        []string // at most policy.MaxGroupMembers and policy.MaxGroupBytes, each once
	ConfirmLockout string
	Idempotency    string
}

// GroupRef names a group. ConfirmLockout is as in PutGroupRequest, for a deletion.
type GroupRef struct {
	Name           string
	ConfirmLockout string
	Idempotency    string
}

func pathGroup(name string) string { return prefixGroup + name }

// groupsAreOf is what changes and reads of groups are asked of: groups belong to
// the installation alone, since each namespace's policies can name them.
func groupsAreOf(context.Context) (*policy.Resource, error) { return &policy.Resource{}, nil }

func (s *Service) groupChange(action policy.Action, q GroupRef, request any) change {
	return s.enforcedChange(change{action: action, idempotency: q.Idempotency, request: request,
		check: checkName("name", q.Name), resource: groupsAreOf})
}

// PutGroup writes a group; its members are in it when the call returns.
func (s *Service) PutGroup(ctx context.Context, call Call, q PutGroupRequest) (Group, error) {
	ref := GroupRef{Name: q.Name, ConfirmLockout: q.ConfirmLockout, Idempotency: q.Idempotency}
	written := policy.Group{Name: q.Name, Members: q.Members}
	c := s.groupChange(policy.PutGroup, ref, struct{ G, M any }{q.Name, q.Members})
	if c.check == nil {
		c.check = groupError(policy.CheckGroup(written))
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Group, error) {
		return s.planGroup(ctx, tx, ref, &written)
	})
}

// DeleteGroup removes a group; nobody is in it when the call returns.
func (s *Service) DeleteGroup(ctx context.Context, call Call, q GroupRef) error {
	c := s.groupChange(policy.DeleteGroup, q, struct{ G any }{q.Name})
	_, err := mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Group, error) {
		return s.planGroup(ctx, tx, q, nil)
	})
	return err
}

// planGroup writes or, with nil, deletes a group.
func (s *Service) planGroup(ctx context.Context, tx *transaction, q GroupRef, written *policy.Group) (Group, error) {
	path := pathGroup(q.Name)
	old, err := read[Group](ctx, s, s.system, path)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Group{}, err
	}
	if written == nil && err != nil {
		return Group{}, errNoGroup(q.Name)
	}
	next := s.policies.source.clone()
	delete(next.groups, path)
	tx.detail("group", q.Name)
	if written != nil {
		next.groups[path] = *written
		tx.detail("members", strings.Join(written.Members, "\n"))
	}
	revision, err := s.planEnforcement(tx, next, &policy.Resource{}, q.Name, q.ConfirmLockout)
	if err != nil {
		return Group{}, err
	}
	if written == nil {
		tx.delete(path, old.revision)
		return Group{}, nil
	}
	now := s.now().UTC()
	g := Group{Name: q.Name, Members: written.Members, Created: now, Updated: now, Revision: revision}
	if old.revision != 0 {
		g.Created = old.value.Created
	}
	tx.put(s.system, path, old.revision, g)
	return g, nil
}

func errNoGroup(name string) error {
	return notFound("GROUP_NOT_FOUND", "group %q does not exist; ListGroups names those there are", name)
}

func groupError(err error) error {
	var bad *policy.InvalidGroup
	if !errors.As(err, &bad) {
		return err
	}
	return &Error{Code: InvalidArgument, Reason: "INVALID_GROUP", Field: bad.Field, Message: bad.Error()}
}

// GetGroup returns a group.
func (s *Service) GetGroup(ctx context.Context, call Call, q GroupRef) (Group, error) {
	return perform(ctx, s, call, policy.GetGroup, q, func(s *Service, ctx context.Context, t *trace, q GroupRef) (Group, error) {
		if err := s.permit(t, policy.GetGroup, &policy.Resource{}, nil, checkName("name", q.Name)); err != nil {
			return Group{}, err
		}
		g, err := read[Group](ctx, s, s.system, pathGroup(q.Name))
		if errors.Is(err, store.ErrNotFound) {
			return Group{}, errNoGroup(q.Name)
		}
		return g.value, err
	})
}

// ListGroups pages through all groups; the request names no namespace.
func (s *Service) ListGroups(ctx context.Context, call Call, q ListRequest) ([]Group, string, error) {
	return performList(ctx, s, call, policy.ListGroups, q, func(s *Service, ctx context.Context, t *trace, q ListRequest) (listing[Group], error) {
		if err := s.authorize(t, policy.ListGroups, &policy.Resource{}, nil); err != nil {
			return listing[Group]{}, err
		}
		return list(ctx, s, s.system, prefixGroup, q.PageSize, q.PageToken, func(g stored[Group]) (Group, bool, error) { return g.value, true, nil })
	})
}
