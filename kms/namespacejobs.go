package kms

import (
	"context"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/policy"
)

// tendPause is how long a namespace is left alone after its rekeying or removal
// failed.
const tendPause = time.Minute

// tendNamespaces goes on with what namespaces have begun: being rekeyed, being
// removed. Their records say so, hence a restart goes on too.
func (s *Service) tendNamespaces(ctx context.Context) {
	tick := time.NewTicker(s.config.JobInterval)
	defer tick.Stop()
	failed := map[ID]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, ns := range s.namespaces.All() {
				if time.Since(failed[ns.ID]) > tendPause && !s.tend(ctx, ns) {
					failed[ns.ID] = time.Now()
				}
			}
		}
	}
}

// tend does the work for a namespace, if there is any, until it is done or ctx
// ends, and tells whether it went well.
func (s *Service) tend(ctx context.Context, ns *namespace) (ok bool) {
	var run func(context.Context, *namespace) error
	switch {
	case s.seals.Load() != nil && s.refuseToken(s.seals.Load(), ns.Token) != nil:
		return true // it goes on when the token is back
	case ns.State == NamespaceDeleted:
		run = s.removeNamespace
	case ns.rekeying():
		run = s.goOnRekeying
	default:
		return true
	}
	err := run(ctx, ns)
	if err == nil || ctx.Err() != nil {
		return true
	}
	s.log.Error("rekeying or removal of a namespace failed; it is tried again", "namespace", ns.Name, "code", CodeOf(err), "error", err)
	return false
}

// namespaceJob brackets a change of a namespace that a job makes, as mutate does
// a caller's. plan is given nil for a namespace that is gone.
func (s *Service) namespaceJob(ctx context.Context, name string, action policy.Action, plan func(context.Context, *namespace, *transaction) error) error {
	c := change{lock: func() *sync.Mutex { return &s.head.lock }, forget: s.reloadHead}
	lock := c.lock()
	lock.Lock()
	defer lock.Unlock()
	t := s.jobTrace(action, name)
	_, err := commitChange(ctx, s, t, c, func(ctx context.Context, _ *trace, tx *transaction) (struct{}, error) {
		ns, err := s.findNamespace(ctx, name)
		if err != nil && CodeOf(err) != NotFound {
			return struct{}{}, err
		}
		return struct{}{}, plan(ctx, ns, tx)
	})
	return s.concludeJob(t, err)
}

// auditedJob commits one page of a job, bracketed.
func (s *Service) auditedJob(ctx context.Context, ns *namespace, action policy.Action, tx *transaction) error {
	t := s.jobTrace(action, ns.Name)
	err := s.auditIntent(t, tx)
	if err == nil {
		err = storeError(tx.commit(ctx, s))
	}
	return s.concludeJob(t, err)
}

func (s *Service) jobTrace(action policy.Action, namespace string) *trace {
	t := s.begin(Call{}, action)
	t.entry.Principal = internalPrincipal
	t.on(namespace, "")
	return t
}

// concludeJob writes the outcome, if anything was to be changed.
func (s *Service) concludeJob(t *trace, err error) error {
	if t.intent == nil && err == nil {
		traces.Put(t)
		return nil
	}
	return s.conclude(t, err)
}
