package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// DESTROYED material is gone from the live store, ERASED material from everywhere:
// whoever has an old file of the store needs the domain secret of its generation
// too. So a namespace is rekeyed, which removes the old generation's secret from
// the live store, and then whoever answers for backups and old files declares
// that none of them holds it either. Keys of protection level HSM were never in the
// store: for these whoever declares it also answers for copies of the token, made
// by the device's own means.

// maxErasures is how many erasures a namespace remembers. The oldest of more is
// forgotten: what it erased is then told to be erased since the next.
const maxErasures = 32

// ConfirmErasure declares that no old file or backup of the store holds the
// secrets of the generations up to q.Generation, and no copy of the token the keys
// of protection level HSM that were destroyed under them: what was is erased. It is
// refused unless they have been replaced and are gone from the live store, and the
// destroyed keys from the token. Saying it again changes nothing.
func (s *Service) ConfirmErasure(ctx context.Context, call Call, q ConfirmErasureRequest) (Namespace, error) {
	c := s.namespaceChange(policy.ConfirmErasure, q.Namespace, q.Idempotency, struct{ N, G any }{q.Namespace, q.Generation})
	if q.Generation == 0 {
		c.check = invalid("generation", "is missing; give one that was replaced, GetNamespace tells the one in use")
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		ns, err := s.findNamespace(ctx, q.Namespace)
		if err != nil {
			return Namespace{}, err
		}
		if q.Generation <= ns.confirmedThrough() {
			return ns.Namespace, nil
		}
		if err := s.checkErasable(ctx, ns, q.Generation); err != nil {
			return Namespace{}, err
		}
		if left, err := s.orphansOf(ctx, ns.ID); err != nil {
			return Namespace{}, err
		} else if left > 0 {
			return Namespace{}, precondition("TOKEN_KEYS_LEFT", "the token still has %d keys of namespace %s that were destroyed; wait until they are removed", left, ns.Name)
		}
		tx.detail("generation", fmt.Sprint(q.Generation))
		return s.putErasure(tx, ns, Erasure{Through: q.Generation}), nil
	})
}

// putErasure notes that all up to a generation is erased. Who calls it knows.
func (s *Service) putErasure(tx *transaction, ns *namespace, e Erasure) Namespace {
	changed := ns.Namespace
	e.Time = s.now().UTC()
	changed.Erasures = append(changed.Erasures[:len(changed.Erasures):len(changed.Erasures)], e)
	if len(changed.Erasures) > maxErasures {
		changed.Erasures = changed.Erasures[1:]
	}
	return s.putNamespace(tx, ns, changed)
}

// checkErasable refuses a generation that is in use, or of which the live store
// still holds something.
func (s *Service) checkErasable(ctx context.Context, ns *namespace, generation uint32) error {
	switch {
	case generation >= ns.Generation:
		return precondition("GENERATION_IN_USE", "generation %d of namespace %s is in use or to come, it has %d; rekey the namespace first",
			generation, ns.Name, ns.Generation)
	case ns.rekeying() && generation >= ns.Rekey.From:
		return precondition("REKEY_UNDER_WAY", "generation %d of namespace %s is still being replaced; wait until the rekeying has ended", generation, ns.Name)
	}
	for older := ns.erasedThrough() + 1; older <= generation; older++ {
		_, err := s.store.Get(ctx, pathDomain(ns.ID, older))
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return storeError(err)
		default:
			return precondition("GENERATION_KEPT", "the store still holds the secret of generation %d of namespace %s, at %s; somebody has put it back: treat it as an incident",
				older, ns.Name, pathDomain(ns.ID, older))
		}
	}
	return nil
}

func (n Namespace) erasedThrough() (through uint32) {
	for _, e := range n.Erasures {
		through = max(through, e.Through)
	}
	return through
}

// confirmedThrough is erasedThrough as far as somebody declared it, for copies of
// the token too.
func (n Namespace) confirmedThrough() (through uint32) {
	for _, e := range n.Erasures {
		if !e.ByRoot {
			through = max(through, e.Through)
		}
	}
	return through
}

// erasedTime tells since when what was destroyed under a generation is erased,
// zero if it is not, or was not destroyed. A destroyed root key erases nothing that
// was on a token itself.
func (s *Service) erasedTime(namespace string, under uint32, p Protection) time.Time {
	ns, ok := s.namespaces.Load(namespace)
	if !ok || under == 0 {
		return time.Time{}
	}
	for _, e := range ns.Erasures {
		if e.Through >= under && !(e.ByRoot && p == HSMLevel) {
			return e.Time
		}
	}
	return time.Time{}
}
