package kms

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/store"
)

// lazyDomain holds a namespace's domain, opened on first use. All snapshots of a
// namespace share it: who still holds an old snapshot writes under the new
// generation too.
type lazyDomain struct {
	state atomic.Pointer[domainState]
	open  sync.Mutex
}

// generations are those in force: what is written is written under newest; while
// the namespace is rekeyed, previous is accepted too, else it is 0.
type generations struct{ newest, previous uint32 }

// domainState is immutable.
type domainState struct {
	generations
	opened *domain.Domain // nil until it is needed
	older  *domain.Domain // previous alone, if it was opened before; saves a call of the HSM
}

func (n Namespace) generations() generations {
	if n.rekeying() {
		return generations{n.Generation, n.Rekey.From}
	}
	return generations{newest: n.Generation}
}

func newLazyDomain(g generations, opened *domain.Domain) *lazyDomain {
	l := &lazyDomain{}
	l.state.Store(&domainState{generations: g, opened: opened})
	return l
}

// want puts generations in force; opened may be nil.
func (l *lazyDomain) want(g generations, opened *domain.Domain) {
	for {
		old := l.state.Load()
		next := old.moved(g)
		if opened != nil {
			next.opened = opened
		}
		if l.state.CompareAndSwap(old, next) {
			return
		}
	}
}

// moved returns the state for other generations, with what of it is open already.
func (st *domainState) moved(g generations) *domainState {
	next := &domainState{generations: g}
	switch d := st.opened; {
	case d == nil:
	case st.generations == g:
		next.opened = d
	case st.newest == g.newest && g.previous == 0:
		next.opened = d.Alone()
	case st.newest == g.previous:
		next.older = d.Alone()
	}
	return next
}

// forget has the domain opened anew, unless another was put in its place.
func (l *lazyDomain) forget(d *domain.Domain) {
	old := l.state.Load()
	if old.opened == d {
		l.state.CompareAndSwap(old, &domainState{generations: old.generations})
	}
}

// errDomainReplaced says that what memory knows of a namespace's generations is
// out of date.
var errDomainReplaced = errors.New("the domain was replaced")

// domainOf returns the namespace's domain, unwrapped by the HSM on first use. The
// caller does not hold the head's lock.
func (s *Service) domainOf(ctx context.Context, ns *namespace) (*domain.Domain, error) {
	return s.domainAfter(ctx, ns, s.followHead)
}

// domainAfter is domainOf with another way to catch up with what is stored.
func (s *Service) domainAfter(ctx context.Context, ns *namespace, catchUp func(context.Context) error) (*domain.Domain, error) {
	if d := ns.domain.state.Load().opened; d != nil {
		return d, nil
	}
	d, err := s.openDomains(ctx, ns)
	if !errors.Is(err, errDomainReplaced) {
		return d, err
	}
	if err := catchUp(ctx); err != nil {
		return nil, err
	}
	d, err = s.openDomains(ctx, ns)
	if errors.Is(err, errDomainReplaced) { // it is what it seemed
		return nil, firstError(errors.Join(s.refusal(ns), err))
	}
	return d, err
}

func (s *Service) openDomains(ctx context.Context, ns *namespace) (*domain.Domain, error) {
	ns.domain.open.Lock()
	defer ns.domain.open.Unlock()
	if sealed := s.seals.Load(); sealed != nil {
		if err := s.refuseToken(sealed, ns.Token); err != nil {
			return nil, err
		}
	}
	for {
		st := ns.domain.state.Load()
		if st.opened != nil {
			return st.opened, nil
		}
		d, err := s.openState(ctx, ns.ID, st)
		if err != nil {
			return nil, err
		}
		if ns.domain.state.CompareAndSwap(st, &domainState{generations: st.generations, opened: d}) {
			return d, nil
		}
	}
}

// openState opens the generations of a state. One that is gone, or a newest that
// is closed, is an errDomainReplaced.
func (s *Service) openState(ctx context.Context, ns ID, st *domainState) (*domain.Domain, error) {
	newest, closed, err := s.openDomain(ctx, ns, st.newest)
	if err == nil && closed {
		err = dataLoss(pathDomain(ns, st.newest), errDomainReplaced)
	}
	older := st.older
	if err == nil && st.previous != 0 && older == nil {
		older, _, err = s.openDomain(ctx, ns, st.previous)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errors.Join(err, errDomainReplaced)
	case err != nil:
		return nil, err
	case st.previous == 0:
		return newest, nil
	}
	return newest.Accepting(older), nil
}

// newerDomain returns the domain of the same namespace as it is now. The caller
// does not hold the head's lock.
func (s *Service) newerDomain(ctx context.Context, d *domain.Domain) (*domain.Domain, error) {
	if err := s.followHead(ctx); err != nil {
		return nil, err
	}
	if ns := s.namespaceOfID(ID(d.Namespace())); ns != nil {
		return s.domainOf(ctx, ns)
	}
	return d, nil
}

// renewDomain makes sure, after a conflict, that the change will be planned anew
// under the domain that is in force. The caller does not hold the head's lock.
func (s *Service) renewDomain(ctx context.Context, d *domain.Domain) error {
	id := ID(d.Namespace())
	record, err := s.store.Get(ctx, pathDomain(id, d.Generation()))
	if err == nil && uint64(record.Revision) == d.Revision() {
		return nil // the conflict was about something else
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return storeError(err)
	}
	if err := s.followHead(ctx); err != nil {
		return err
	}
	if ns := s.namespaceOfID(id); ns != nil {
		ns.domain.forget(d)
	}
	return nil
}

func (s *Service) namespaceOfID(id ID) *namespace {
	for _, ns := range s.namespaces.All() {
		if ns.ID == id {
			return ns
		}
	}
	return nil
}

// sealedAnew returns a version's record whose material is sealed under d: what is
// written under a generation holds nothing of the one before. If d is out of date
// the record stays as it is: it cannot be written under d any more.
func sealedAnew(d *domain.Domain, place string, v versionRecord) (versionRecord, error) {
	if len(v.Material) == 0 {
		return v, nil
	}
	under, err := domain.SealedUnder(v.Material)
	if err == nil && under >= d.Generation() {
		return v, nil
	}
	secret, err := d.Open(place, v.Material)
	if err != nil {
		return v, err
	}
	defer clear(secret)
	v.Material, err = d.Seal(place, secret)
	return v, err
}
