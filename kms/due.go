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
}

func pathDue(at time.Time, job due) string {
	place := fmt.Sprintf("%s%012x/%s/", prefixDue, dueSecond(at), job.Kind)
	if job.Path != "" {
		return place + strings.ReplaceAll(job.Path, "/", "-")
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

// runDue does what is due, oldest first, until nothing is or ctx ends.
func (s *Service) runDue(ctx context.Context) error {
	s.checkClock()
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
			if err := s.runJob(ctx, record); err != nil {
				// One that fails must not hold up the others; it is tried again.
				s.log.Error("background job failed", "job", record.Key, "code", CodeOf(err), "error", err)
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
	if job.value.Kind == dueForget {
		tx := &transaction{}
		tx.delete(record.Key, record.Revision)
		tx.discard(job.value.Path)
		return storeError(tx.commit(ctx, s))
	}
	if job.value.destroys() && s.clock.paused.Load() {
		return nil // it stays due
	}
	run, ok := map[string]keyJob{
		dueRotate:         {policy.RotateKey, s.rotateDue},
		dueDestroyVersion: {policy.DestroyVersion, s.destroyVersion},
		dueDeleteKey:      {policy.DeleteKey, s.deleteKey},
	}[job.value.Kind]
	if !ok {
		return dataLoss(record.Key, errors.New("unknown kind of job"))
	}
	return s.runKeyJob(ctx, run, job.value, &record)
}

// keyJob is a change of a key that nobody asks for but the clock or a counter.
type keyJob struct {
	action policy.Action
	plan   func(ctx context.Context, at *target, job due, t *trace, tx *transaction) error
}

// runKeyJob brackets a job as mutate does a caller's change: intent, act,
// outcome. waiting is its record, removed with the job's last transaction.
func (s *Service) runKeyJob(ctx context.Context, run keyJob, job due, waiting *store.Record) error {
	for {
		done, err := s.stepKeyJob(ctx, run, job, waiting)
		if done || err != nil {
			return err
		}
	}
}

func (s *Service) stepKeyJob(ctx context.Context, run keyJob, job due, waiting *store.Record) (done bool, err error) {
	ns, err := s.findNamespace(ctx, job.Namespace)
	if err != nil {
		return false, err
	}
	if _, err := s.domainOf(ctx, ns); err != nil { // before the lock, as in findKeyByID
		return false, err
	}
	lock := s.lock(job.Key)
	lock.Lock()
	defer lock.Unlock()
	k, err := s.loadKey(ctx, ns, job.Key)
	if err != nil {
		return false, err
	}
	t := s.begin(Call{}, run.action)
	t.entry.Principal = internalPrincipal
	t.on(ns.Name, k.Name)
	t.about(k)
	tx := &transaction{}
	if err := run.plan(ctx, &target{key: k}, job, t, tx); err != nil {
		traces.Put(t)
		return false, err
	}
	done = len(tx.txn.Puts) < deletePage
	if waiting != nil && done {
		s.finishDue(tx, waiting)
	}
	if len(tx.txn.Puts) == 0 { // nothing left to do but to forget the job
		traces.Put(t)
		return true, storeError(tx.commit(ctx, s))
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

// finishDue removes the job's record, unless the plan has done so by scheduling anew.
func (s *Service) finishDue(tx *transaction, waiting *store.Record) {
	for _, path := range tx.txn.Deletes {
		if path == waiting.Key {
			return
		}
	}
	tx.delete(waiting.Key, waiting.Revision)
}

// rotateDue rotates a key whose period is over or whose uses are spent.
func (s *Service) rotateDue(ctx context.Context, at *target, job due, t *trace, tx *transaction) error {
	k, d, err := s.currentActive(ctx, at)
	if CodeOf(err) == FailedPrecondition {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	byPeriod := !k.value.NextRotation.IsZero() && !k.value.NextRotation.After(s.now())
	byUse := job.Version != 0 && job.Version == k.value.PrimaryVersion
	if !byPeriod && !byUse {
		return nil // rotated meanwhile
	}
	tx.detail("cause", map[bool]string{true: "period", false: "uses"}[byPeriod])
	_, err = s.planRotation(t, tx, d, at, k)
	return err
}

// rotateSpent rotates a key whose primary version has no uses left, for the
// caller that found it so; another may have done it first.
func (s *Service) rotateSpent(ctx context.Context, k *key) error {
	job := due{Kind: dueRotate, Namespace: k.ns.Name, Key: k.ID, Version: k.PrimaryVersion}
	return s.runKeyJob(ctx, keyJob{policy.RotateKey, s.rotateDue}, job, nil)
}
