package kms

import (
	"context"
	"errors"
	"fmt"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// A namespace moves to another token in one transaction: its domain secrets, one or,
// while it is rekeyed, two, are unwrapped by the one root key and wrapped by the
// other, and its record says where it belongs. The secrets and all below stay the
// same, so keys go on serving; after a leak the namespace is rekeyed as well.

// MigrateNamespaceRequest binds a namespace to another token.
type MigrateNamespaceRequest struct {
	Namespace   string
	Token       string // empty: DefaultToken
	Idempotency string
}

// MigrateNamespace moves a namespace's SOFTWARE keys to another token, by two calls
// of either token. It is refused while the namespace has HSM-resident keys, which
// cannot leave theirs. To a namespace that is there already it does nothing.
func (s *Service) MigrateNamespace(ctx context.Context, call Call, q MigrateNamespaceRequest) (Namespace, error) {
	c := s.namespaceChange(policy.MigrateNamespace, q.Namespace, q.Idempotency, struct{ N, T any }{q.Namespace, tokenName(q.Token)})
	c.check = s.checkToken(q.Token)
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		ns, err := s.findNamespace(ctx, q.Namespace)
		if err != nil {
			return Namespace{}, err
		}
		if err := s.refusal(ns); err != nil {
			return Namespace{}, err
		}
		to, err := s.activeRoot(q.Token)
		if err != nil || tokenName(ns.Token) == tokenName(q.Token) {
			return ns.Namespace, err
		}
		if err := s.refuseResident(ctx, ns); err != nil {
			return Namespace{}, err
		}
		return s.planMigration(ctx, tx, ns, to)
	})
}

func (s *Service) planMigration(ctx context.Context, tx *transaction, ns *namespace, to *rootVersion) (Namespace, error) {
	secrets := 0
	g := ns.generations()
	for _, generation := range []uint32{g.newest, g.previous} {
		if generation == 0 {
			continue
		}
		record, err := s.store.Get(ctx, pathDomain(ns.ID, generation))
		if errors.Is(err, store.ErrNotFound) && generation == g.previous {
			continue
		}
		if errors.Is(err, store.ErrNotFound) {
			return Namespace{}, dataLoss(pathDomain(ns.ID, generation), err)
		}
		if err != nil {
			return Namespace{}, storeError(err)
		}
		if err := s.rewrapRecord(ctx, tx, record, to); err != nil {
			return Namespace{}, err
		}
		secrets++
	}
	changed := ns.Namespace
	changed.Token = to.Token
	tx.detail("token", tokenName(ns.Token)+" -> "+tokenName(to.Token))
	tx.detail("root_version", fmt.Sprint(to.Version))
	tx.detail("domains", fmt.Sprint(secrets))
	return s.putNamespace(tx, ns, changed), nil
}

// refuseResident refuses to leave HSM-resident keys behind, and names them. One whose
// making ends at this very moment may be missed: it cannot be used until the
// namespace is moved back.
func (s *Service) refuseResident(ctx context.Context, ns *namespace) error {
	d, err := s.domainAfter(ctx, ns, s.loadHead)
	if err != nil {
		return err
	}
	var names []string
	n := 0
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefixKey+ns.ID.String()+"/", after, store.MaxPageRecords)
		if err != nil {
			return storeError(err)
		}
		for _, record := range page.Records {
			k, err := decode[keyRecord](d, record)
			if err != nil {
				return err
			}
			if k.value.Protection == Software || k.value.State == KeyDeleted {
				continue
			}
			if n++; len(names) < 10 {
				names = append(names, k.value.Name)
			}
		}
		after = page.Next
	}
	if n == 0 {
		return nil
	}
	return precondition("HSM_KEYS_STAY", "namespace %s has %d keys of protection level HSM, which cannot leave token %s: %s; make new ones in a namespace of the other token, and delete these first",
		ns.Name, n, tokenName(ns.Token), firstNames(names, n))
}
