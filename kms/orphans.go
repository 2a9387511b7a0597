package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

const (
	// orphanGrace is how long an object is looked for whose making nobody answered
	// for: a call that was given up may still be at work in the device.
	orphanGrace = 10 * time.Minute
	// tokenTimeout bounds a round of the jobs that need the token.
	tokenTimeout = 10 * time.Minute
	// orphanPage is how many objects one transaction gives up.
	orphanPage = 50
	// maxTokenPause is the longest pause after rounds that failed.
	maxTokenPause = time.Minute
)

// eventRemoveObject is the entry of an object that was removed from the token.
const eventRemoveObject = "RemoveTokenKey"

// tendToken does what needs the token and no caller waits for: removing objects
// that no version owns, and rotations that are due. While the token fails, it tries
// less and less often.
func (s *Service) tendToken(ctx context.Context) {
	tick := time.NewTicker(s.config.JobInterval)
	defer tick.Stop()
	s.objects.soon()
	var pause time.Duration
	var resume time.Time
	for {
		rounds := []func(context.Context) error{s.removeOrphans}
		select {
		case <-ctx.Done():
			return
		case k := <-s.jobs.rotateOnToken:
			rounds[0] = func(ctx context.Context) error { return s.rotateSpent(ctx, k) }
		case <-s.objects.wake:
		case <-tick.C:
			rounds = append(rounds, s.runTokenDue)
		}
		if time.Now().Before(resume) {
			continue
		}
		var err error
		for _, round := range rounds {
			err = errors.Join(err, s.tokenRound(ctx, round))
		}
		if pause = nextPause(pause, err); pause > 0 {
			resume = time.Now().Add(pause)
		}
	}
}

// nextPause doubles the pause, from a second on, for as long as it fails.
func nextPause(pause time.Duration, err error) time.Duration {
	if err == nil {
		return 0
	}
	return min(max(2*pause, time.Second), maxTokenPause)
}

func (s *Service) tokenRound(ctx context.Context, run func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	err := run(ctx)
	if err != nil && ctx.Err() == nil {
		s.log.Error("what needs the token failed; it is tried again", "code", CodeOf(err), "error", err)
	}
	return err
}

// runTokenDue does what is due and needs the token, until the first fails.
func (s *Service) runTokenDue(ctx context.Context) error {
	return s.eachDue(ctx, func(record store.Record) error {
		job, err := decode[due](s.system, record)
		if err != nil || !job.value.OnToken || !s.wellToken(s.tokenOf(job.value.Namespace)) {
			return nil //nolint:nilerr // runDue tells of it; what waits for its token stays due
		}
		return s.runKeyJob(ctx, s.rotation(), job.value, &record)
	})
}

// removeOrphans removes the objects that no version owns and none is about to. It
// tries no other after one that its token does not remove; a record that cannot be
// believed holds up none.
func (s *Service) removeOrphans(ctx context.Context) error {
	s.objects.round.Lock()
	defer s.objects.round.Unlock()
	var left int64
	failing := map[string]bool{} // tokens
	var failed error
	err := s.eachOrphan(ctx, func(path string, o stored[orphanRecord]) error {
		id, err := objectAt(path)
		if err != nil || s.objects.isMaking(id) {
			return err
		}
		token := o.value.Token
		if failing[token] || !s.wellToken(token) { // it would fail: only count
			left++
			return nil
		}
		gone, err := s.removeOrphan(ctx, id, o)
		if errors.Is(err, store.ErrConflict) {
			return nil // it was taken just now
		}
		if !gone {
			left++
		}
		if err != nil && CodeOf(err) != DataLoss {
			failing[token] = true
			failed, err = errors.Join(failed, err), nil
		}
		return err
	})
	s.objects.left.Store(left)
	return errors.Join(failed, err)
}

// eachOrphan calls fn for each record of an object that no version owns, until it
// fails with anything but DATA_LOSS.
func (s *Service) eachOrphan(ctx context.Context, fn func(path string, o stored[orphanRecord]) error) error {
	var damaged error
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefixOrphan, after, 0)
		if err != nil {
			return storeError(err)
		}
		for _, record := range page.Records {
			o, err := decode[orphanRecord](s.system, record)
			if err == nil {
				err = fn(record.Key, o)
			}
			if CodeOf(err) == DataLoss {
				damaged, err = firstOf(damaged, err), nil
			}
			if err != nil {
				return err
			}
		}
		after = page.Next
	}
	return damaged
}

// removeOrphan removes an object and its record, and tells whether both are gone.
func (s *Service) removeOrphan(ctx context.Context, id ObjectID, o stored[orphanRecord]) (gone bool, err error) {
	if !o.value.Doomed {
		if err := s.doom(ctx, id, &o); err != nil {
			return false, err
		}
	}
	if err := s.checkOrphan(ctx, id, o.value); err != nil {
		return false, err
	}
	wait := s.now().Before(o.value.Until)
	if wait && s.objects.wasSwept(id) {
		return false, nil
	}
	hsm, err := s.tokenHSM(o.value.Token)
	if err != nil {
		return false, err
	}
	if err := hsm.Destroy(ctx, id); err != nil {
		return false, hsmError("", err)
	}
	if wait {
		s.objects.sweep(id)
		return false, nil
	}
	err = s.forgetOrphan(ctx, id, o)
	return err == nil, err
}

// doom makes sure that no version takes the object any more.
func (s *Service) doom(ctx context.Context, id ObjectID, o *stored[orphanRecord]) error {
	o.value.Doomed = true
	if !s.objects.isSure(id) {
		o.value.Until = s.now().Add(orphanGrace).UTC()
	}
	tx := &transaction{}
	tx.put(s.system, pathOrphan(id), o.revision, o.value)
	tx.then(func(revision store.Revision) { o.revision = revision })
	return storeError(tx.commit(ctx, s))
}

// checkOrphan makes sure that no version owns the object. Somebody who can write
// to the store can put an old record back; what is removed from the token does not
// come back with a backup of the store.
func (s *Service) checkOrphan(ctx context.Context, id ObjectID, o orphanRecord) error {
	for _, owned := range []string{pathObject(o.Namespace, id), pathImport(o.Namespace, id)} {
		switch _, err := s.store.Get(ctx, owned); {
		case err == nil:
			return errStillOwned(id)
		case !errors.Is(err, store.ErrNotFound):
			return storeError(err)
		}
	}
	ns := s.namespaceOfID(o.Namespace)
	if ns == nil || ns.State == NamespaceDeleted {
		return nil
	}
	d, err := s.domainOf(ctx, ns)
	if err != nil {
		return err
	}
	v, err := read[versionRecord](ctx, s, d, pathVersion(o.Namespace, o.Key, o.Version))
	switch {
	case err == nil && v.value.Object != nil && v.value.Object.ID == id && v.value.State != Destroyed:
		return errStillOwned(id)
	case errors.Is(err, store.ErrNotFound):
		return s.checkNoVersion(ctx, d, id, o)
	}
	return err
}

// checkNoVersion makes sure that the version that an object was for never was.
func (s *Service) checkNoVersion(ctx context.Context, d *domain.Domain, id ObjectID, o orphanRecord) error {
	k, err := read[keyRecord](ctx, s, d, pathKey(o.Namespace, o.Key))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil && k.value.LatestVersion >= o.Version:
		return errStillOwned(id)
	}
	return err
}

func errStillOwned(id ObjectID) error {
	return dataLoss(pathOrphan(id), errors.New("it says that no version owns the key on the token, but one does, or did: nothing was removed; treat it as an incident"))
}

// forgetOrphan writes down that the object is gone.
func (s *Service) forgetOrphan(ctx context.Context, id ObjectID, o stored[orphanRecord]) error {
	event := audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: eventRemoveObject,
		Namespace: o.value.NamespaceName, KeyID: uint64(o.value.Key), Version: o.value.Version, Outcome: string(OK),
		Details: map[string]string{"object": id.String()}}
	if _, err := s.audit.Append(&event, audit.Sync); err != nil {
		return auditError(err)
	}
	tx := &transaction{}
	tx.delete(pathOrphan(id), o.revision)
	if err := tx.commit(ctx, s); err != nil {
		return storeError(err)
	}
	s.objects.forget(id)
	return nil
}

func (o *objects) isSure(id ObjectID) bool {
	o.lock.Lock()
	defer o.lock.Unlock()
	_, sure := o.sure[id]
	return sure
}

func (o *objects) wasSwept(id ObjectID) bool {
	o.lock.Lock()
	defer o.lock.Unlock()
	_, swept := o.swept[id]
	return swept
}

func (o *objects) sweep(id ObjectID) {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.swept[id] = struct{}{}
}

func (o *objects) forget(id ObjectID) {
	o.lock.Lock()
	defer o.lock.Unlock()
	delete(o.sure, id)
	delete(o.swept, id)
}

// orphansOf counts the objects of a namespace that are still to be removed.
func (s *Service) orphansOf(ctx context.Context, ns ID) (n int, err error) {
	err = s.eachOrphan(ctx, func(_ string, o stored[orphanRecord]) error {
		if o.value.Namespace == ns {
			n++
		}
		return nil
	})
	return n, err
}

// orphanObjects gives up a page of the objects of a DELETED namespace, and tells
// whether there may be more.
func (s *Service) orphanObjects(ctx context.Context, ns *namespace) (more bool, err error) {
	page, err := s.store.List(ctx, prefixObjects(ns.ID), "", orphanPage)
	if err != nil || len(page.Records) == 0 {
		return false, storeError(err)
	}
	tx := &transaction{}
	for _, record := range page.Records {
		tx.delete(record.Key, record.Revision)
		o, err := decode[objectRecord](s.system, record)
		id, err2 := objectAt(record.Key)
		if err := errors.Join(err, err2); err != nil { // its object stays on the token: the comparison reports it
			s.log.Error("a damaged record of a key on the token was removed with its namespace", "record", record.Key, "error", err)
			continue
		}
		tx.put(s.system, pathOrphan(id), 0, orphanRecord{objectRecord: o.value, Namespace: ns.ID, NamespaceName: ns.Name, Created: s.now().UTC(), Doomed: true})
	}
	tx.then(func(store.Revision) { s.objects.soon() })
	tx.detail("token_keys", fmt.Sprint(len(page.Records)))
	return true, s.auditedJob(ctx, ns, policy.DeleteNamespace, tx)
}
