package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// Kinds of due jobs.
const (
	dueRotate         = "rotate"
	dueDestroyVersion = "destroy-version"
	dueDeleteKey      = "delete-key"
	dueForget         = "forget" // an idempotency record
	dueLease          = "lease"
	dueRevocation     = "revocation"
	dueImport         = "import"
	dueTrim           = "trim"

	dueDeleteNamespace = "delete-namespace"
)

// due is a job that waits for its time in the store, under due/ and the time in
// hexadecimal seconds: finding what is due costs the same however many keys
// there are. It is written in the transaction that schedules it and removed in
// the one that does it, so no crash loses it or does it twice. It is a hint: the
// record it points at says itself whether the time has come.
type due struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Key       ID     `json:"key,omitzero"`
	Version   uint32 `json:"version,omitempty"`
	Path      string `json:"path,omitempty"`
	// OnToken jobs need the token and wait for it without holding up the others.
	OnToken bool `json:"on_token,omitempty"`
	// NamespaceID is that of a job about a namespace as a whole.
	NamespaceID ID `json:"namespace_id,omitzero"`
}

func pathDue(at time.Time, job due) string {
	place := fmt.Sprintf("%s%012x/%s/", prefixDue, dueSecond(at), job.Kind)
	if job.Path != "" {
		return place + strings.ReplaceAll(job.Path, "/", "-")
	}
	if job.Key == 0 {
		return place + job.NamespaceID.String()
	}
	return fmt.Sprintf("%s%s/%08x", place, job.Key, job.Version)
}

// dueSecond rounds up, so that a job is never found before its time.
func dueSecond(at time.Time) int64 {
	return at.Add(time.Second - time.Nanosecond).Unix()
}

func (s *Service) putDue(tx *transaction, at time.Time, job due) {
	path := pathDue(at, job)
	for i, deleted := range tx.txn.Deletes { // scheduled anew for the same second
		if deleted == path {
			tx.txn.Deletes = append(tx.txn.Deletes[:i], tx.txn.Deletes[i+1:]...)
			return
		}
	}
	tx.put(s.system, path, 0, job)
}

// runDue does what is due, oldest first, until nothing is or ctx ends, but for what
// needs the token.
func (s *Service) runDue(ctx context.Context) error {
	s.checkClock()
	return s.eachDue(ctx, func(record store.Record) error {
		if err := s.runJob(ctx, record); err != nil {
			// One that fails must not hold up the others; it is tried again.
			s.log.Error("background job failed", "job", record.Key, "code", CodeOf(err), "error", err)
		}
		return nil
	})
}

// eachDue calls run for each job that is due, oldest first, until it fails.
func (s *Service) eachDue(ctx context.Context, run func(store.Record) error) error {
	limit := fmt.Sprintf("%s%012x", prefixDue, s.now().Unix()+1)
	after := ""
	for {
		page, err := s.store.List(ctx, prefixDue, after, 100)
		if err != nil {
			return storeError(err)
		}
		for _, record := range page.Records {
			if record.Key >= limit {
				return nil
			}
			if err := run(record); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (s *Service) runJob(ctx context.Context, record store.Record) error {
	job, err := decode[due](s.system, record)
	if err != nil {
		return err
	}
	if job.value.destroys() && s.clock.paused.Load() {
		return nil // it stays due
	}
	if job.value.OnToken {
		return nil // runTokenDue does it
	}
	switch job.value.Kind {
	case dueForget:
		tx := &transaction{}
		tx.delete(record.Key, record.Revision)
		tx.discard(job.value.Path)
		return storeError(tx.commit(ctx, s))
	case dueLease:
		return s.endLease(ctx, record, job.value.Path)
	case dueRevocation:
		return s.pruneRevocation(ctx, record, job.value.Path)
	case dueImport:
		return s.endImport(ctx, record, job.value.Path)
	case dueDeleteNamespace:
		return s.beginRemoval(ctx, job.value, record)
	}
	run, ok := map[string]keyJob{
		dueRotate:         s.rotation(),
		dueDestroyVersion: {action: policy.DestroyVersion, plan: s.destroyVersion},
		dueDeleteKey:      {action: policy.DeleteKey, plan: s.deleteKey},
		dueTrim:           {action: policy.DestroyVersion, plan: s.trimRest},
	}[job.value.Kind]
	if !ok {
		return dataLoss(record.Key, errors.New("unknown kind of job"))
	}
	return s.runKeyJob(ctx, run, job.value, &record)
}

// keyJob is a change of a key that nobody asks for but the clock or a counter.
type keyJob struct {
	action policy.Action
	// prepare does, before the key's lock is taken, what takes its time, as change's
	// does; errNotDue says that nothing is left to do. nil if there is nothing.
	prepare func(ctx context.Context, t *trace, at *target, job due) (done func(), err error)
	plan    func(ctx context.Context, at *target, job due, t *trace, tx *transaction) error
}

func (s *Service) rotation() keyJob {
	return keyJob{action: policy.RotateKey, prepare: s.prepareDue, plan: s.rotateDue}
}

// runKeyJob brackets a job as mutate does a caller's change: intent, act,
// outcome. waiting is its record, removed with the job's last transaction.
func (s *Service) runKeyJob(ctx context.Context, run keyJob, job due, waiting *store.Record) error {
	for lost := 0; ; {
		done, err := s.stepKeyJob(ctx, run, job, waiting)
		if errors.Is(err, store.ErrConflict) && lost < maxAttempts {
			lost++
			continue
		}
		if done || err != nil {
			return err
		}
	}
}

// dropDue forgets a job that has nothing to do any more.
func (s *Service) dropDue(ctx context.Context, waiting store.Record) error {
	tx := &transaction{}
	tx.delete(waiting.Key, waiting.Revision)
	return storeError(tx.commit(ctx, s))
}

func (s *Service) stepKeyJob(ctx context.Context, run keyJob, job due, waiting *store.Record) (done bool, err error) {
	ns, err := s.findNamespace(ctx, job.Namespace)
	if err == nil && ns.State == NamespaceDeleted {
		err = notFound("NAMESPACE_DELETED", "namespace %s is being removed", ns.Name)
	}
	if waiting != nil && CodeOf(err) == NotFound { // it was removed, with all its keys
		return true, s.dropDue(ctx, *waiting)
	}
	if err != nil {
		return false, err
	}
	k, err := s.findKeyByID(ctx, ns, job.Key)
	if waiting != nil && CodeOf(err) == NotFound { // the namespace is another one of that name
		return true, s.dropDue(ctx, *waiting)
	}
	if err != nil {
		return false, err
	}
	t := s.jobTrace(run.action, ns.Name)
	t.about(k)
	if run.prepare != nil {
		prepared, err := run.prepare(ctx, t, &target{key: k}, job)
		defer prepared()
		if err != nil && !errors.Is(err, errNotDue) {
			return false, s.abandon(t, err)
		}
	}
	lock := s.lock(job.Key)
	lock.Lock()
	defer lock.Unlock()
	return s.commitKeyJob(ctx, run, job, t, k, waiting)
}

// commitKeyJob plans and commits a step of a job, under the key's lock.
func (s *Service) commitKeyJob(ctx context.Context, run keyJob, job due, t *trace, k *key, waiting *store.Record) (done bool, err error) {
	tx := &transaction{}
	if err := run.plan(ctx, &target{key: k}, job, t, tx); err != nil {
		return false, s.abandon(t, err)
	}
	done = !tx.more
	if waiting != nil && done {
		s.finishDue(tx, waiting)
	}
	if len(tx.txn.Puts) == 0 { // nothing left to do but to forget the job
		return true, s.abandon(t, storeError(tx.commit(ctx, s)))
	}
	if err = s.auditIntent(t, tx); err == nil {
		err = storeError(tx.commit(ctx, s))
	}
	if errors.Is(err, store.ErrUnknown) {
		s.cache.dropVersion(k.ID, job.Version)
		s.cache.dropKey(k)
	}
	return done, s.conclude(t, err)
}

// abandon ends the trace of a job that changes nothing, with an outcome if it has
// an intent.
func (s *Service) abandon(t *trace, err error) error {
	if t.intent != nil {
		return s.conclude(t, err)
	}
	traces.Put(t)
	return err
}

// finishDue removes the job's record, unless the plan has done so by scheduling anew.
func (s *Service) finishDue(tx *transaction, waiting *store.Record) {
	for _, path := range tx.txn.Deletes {
		if path == waiting.Key {
			return
		}
	}
	tx.delete(waiting.Key, waiting.Revision)
}

// rotateDue rotates a key whose period is over or whose uses are spent. It goes on
// while the namespace is scheduled for deletion, so that a restored one is as if
// nothing had been.
func (s *Service) rotateDue(ctx context.Context, at *target, job due, t *trace, tx *transaction) error {
	k, d, err := s.current(ctx, at)
	if err != nil || k.value.State != KeyActive { // deleted meanwhile
		return err
	}
	byPeriod, byUse := s.rotationDue(k.value, job)
	if !byPeriod && !byUse {
		return nil // rotated meanwhile
	}
	tx.detail("cause", map[bool]string{true: "period", false: "uses"}[byPeriod])
	_, err = s.planRotation(t, tx, d, at, k)
	return err
}

func (s *Service) rotationDue(k keyRecord, job due) (byPeriod, byUse bool) {
	return !k.NextRotation.IsZero() && !k.NextRotation.After(s.now()), job.Version != 0 && job.Version == k.PrimaryVersion
}

// prepareDue is prepareRotation for a rotation that nobody asks for.
func (s *Service) prepareDue(ctx context.Context, t *trace, at *target, job due) (done func(), err error) {
	return s.prepareRotation(ctx, t, at, func(k keyRecord) error {
		if byPeriod, byUse := s.rotationDue(k, job); k.State != KeyActive || !byPeriod && !byUse {
			return errNotDue
		}
		return nil
	})
}

// rotateSpent rotates a key whose primary version has no uses left, for the
// caller that found it so; another may have done it first.
func (s *Service) rotateSpent(ctx context.Context, k *key) error {
	job := due{Kind: dueRotate, Namespace: k.ns.Name, Key: k.ID, Version: k.PrimaryVersion}
	return s.runKeyJob(ctx, s.rotation(), job, nil)
}
