package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// rekeyPage is how many records one transaction of a rekeying seals anew at most.
const rekeyPage = 50

// rekeying is one round of sealing a namespace's records anew.
type rekeying struct {
	*Service

	ns      *namespace
	d       *domain.Domain
	at      stored[rekeyRecord]
	size    int   // of the next page
	lost    int   // races in a row
	damaged error // the first record that could not be sealed anew
}

// maxLost bounds how often a page is tried again, smaller and smaller.
const maxLost = 50

// goOnRekeying goes on where the last round ended, until ctx does or all is sealed
// under the new generation. A record that fails authentication is left as it is
// and holds up no other; but while there is one, the old secret is kept, for it
// may be needed once the record is restored.
func (s *Service) goOnRekeying(ctx context.Context, ns *namespace) error {
	at, err := read[rekeyRecord](ctx, s, s.system, pathRekey(ns.ID))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err != nil || at.value.Generation != ns.Generation { // another server has ended it, or somebody removed the record
		if err := s.followHead(ctx); err != nil {
			return err
		}
		if ns = s.namespaceOfID(ns.ID); ns == nil || !ns.rekeying() {
			return nil
		}
		at.value = rekeyRecord{Generation: ns.Generation}
	}
	d, err := s.domainOf(ctx, ns)
	if err != nil {
		return err
	}
	r := &rekeying{Service: s, ns: ns, d: d, at: at, size: rekeyPage}
	if err := r.sealAll(ctx); err != nil {
		return err
	}
	if err := r.lookAgain(ctx); err != nil {
		return err
	}
	return s.endRekey(ctx, ns, r.at)
}

// sealAll seals all records anew from where the last round ended. After a
// damaged record the next round begins from the beginning.
func (r *rekeying) sealAll(ctx context.Context) error {
	prefixes := ownPrefixes(r.ns.ID)
	for r.at.value.Prefix < len(prefixes) {
		if err := r.sealPage(ctx, prefixes[r.at.value.Prefix]); err != nil {
			return err
		}
	}
	if r.damaged != nil {
		return errors.Join(r.damaged, r.startOver(ctx))
	}
	return nil
}

// sealPage seals one page anew and moves on. A page that lost a race, or is too
// large for one transaction, is tried again as a smaller one.
func (r *rekeying) sealPage(ctx context.Context, prefix string) error {
	page, err := r.store.List(ctx, prefix, r.at.value.After, r.size)
	if err != nil {
		return storeError(err)
	}
	next := r.at.value
	if next.After = page.Next; page.Next == "" {
		next.Prefix++
	}
	old := slices.DeleteFunc(page.Records, func(record store.Record) bool {
		_, under, err := domain.Claimed(record.Value)
		return err == nil && under == r.d.Generation()
	})
	if len(old) == 0 { // sealed before the last round ended, or written since
		r.at.value = next
		return nil
	}
	err = r.commitPage(ctx, old, next)
	switch {
	case err == nil:
		r.size, r.lost = min(2*r.size, rekeyPage), 0
	case (errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrInvalid)) && r.lost < maxLost:
		r.size, r.lost = max(r.size/2, 1), r.lost+1
		return r.catchUp(ctx)
	}
	return err
}

// catchUp reads how far the rekeying has come: another server may go on with it too.
func (r *rekeying) catchUp(ctx context.Context) error {
	at, err := read[rekeyRecord](ctx, r.Service, r.system, pathRekey(r.ns.ID))
	if errors.Is(err, store.ErrNotFound) {
		return storeError(store.ErrConflict) // it has ended it; the next round sees that
	}
	if err == nil {
		r.at = at
		r.d, err = r.sameDomain(ctx, r.ns, r.d)
	}
	return err
}

// commitPage seals records anew under the locks of their keys, so that no change
// of those loses a race against it.
func (r *rekeying) commitPage(ctx context.Context, records []store.Record, next rekeyRecord) error {
	defer r.lockKeys(records)()
	tx := &transaction{}
	for _, record := range records {
		err := r.sealRecord(ctx, tx, record.Key)
		if CodeOf(err) == DataLoss {
			r.damaged = firstOf(r.damaged, err)
			continue
		}
		if err != nil {
			return err
		}
	}
	sealed := len(tx.txn.Puts)
	next.Records += uint64(sealed)
	if sealed == 0 {
		r.at.value = next
		return nil
	}
	r.move(tx, next)
	tx.detail("generation", fmt.Sprintf("%d -> %d", r.d.Previous(), r.d.Generation()))
	tx.detail("records", fmt.Sprint(sealed))
	return r.auditedJob(ctx, r.ns, policy.RekeyNamespace, tx)
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// move notes how far the rekeying has come once the transaction is durable.
func (r *rekeying) move(tx *transaction, next rekeyRecord) {
	tx.put(r.system, pathRekey(r.ns.ID), r.at.revision, next)
	tx.then(func(revision store.Revision) { r.at = stored[rekeyRecord]{next, revision} })
}

func (r *rekeying) startOver(ctx context.Context) error {
	tx := &transaction{}
	r.move(tx, rekeyRecord{Generation: r.at.value.Generation, Records: r.at.value.Records})
	return storeError(tx.commit(ctx, r.Service))
}

// lockKeys takes the locks of all keys that the records belong to and returns
// what gives them back. Only here more than one is taken, in order.
func (r *rekeying) lockKeys(records []store.Record) (unlock func()) {
	var stripes []int
	for _, record := range records {
		id, _ := recordOf(r.ns.ID, record.Key)
		if name, err := decode[keyNameRecord](r.d, record); err == nil && strings.HasPrefix(record.Key, prefixKeyName) {
			id = name.value.ID
		}
		stripes = append(stripes, int(uint64(id)%lockStripes))
	}
	slices.Sort(stripes)
	stripes = slices.Compact(stripes)
	for _, i := range stripes {
		r.locks[i].Lock()
	}
	return func() {
		for _, i := range stripes {
			r.locks[i].Unlock()
		}
	}
}

// sealRecord puts a record as it is now under the new generation, a version with
// its material.
func (r *rekeying) sealRecord(ctx context.Context, tx *transaction, path string) error {
	record, err := r.store.Get(ctx, path)
	if errors.Is(err, store.ErrNotFound) {
		return nil // a name that is free since
	}
	if err != nil {
		return storeError(err)
	}
	payload, err := decode[json.RawMessage](r.d, record)
	if err != nil {
		return err
	}
	if _, under, err := domain.Claimed(record.Value); err != nil || under == r.d.Generation() {
		return err // written since the page was listed
	}
	if !strings.HasPrefix(path, prefixVersion) {
		tx.put(r.d, path, record.Revision, payload.value)
		return nil
	}
	v, err := r.sealVersion(ctx, path, payload.value)
	if err == nil {
		tx.put(r.d, path, record.Revision, v)
	}
	return err
}

// sealVersion seals a version's material anew. What it is bound to names the
// key's algorithm.
func (r *rekeying) sealVersion(ctx context.Context, path string, payload json.RawMessage) (versionRecord, error) {
	var v versionRecord
	if err := json.Unmarshal(payload, &v); err != nil {
		return v, dataLoss(path, err)
	}
	id, number := recordOf(r.ns.ID, path)
	k, err := read[keyRecord](ctx, r.Service, r.d, pathKey(r.ns.ID, id))
	if err == nil {
		v, err = sealedAnew(r.d, materialPlace(r.ns.ID, id, number, k.value.Algorithm), v)
	}
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, domain.ErrNotAuthentic) {
		return v, dataLoss(path, err)
	}
	return v, sealError(err)
}

// lookAgain makes sure that nothing is left of the old generation: every record
// is read once more and must be sealed under the new one.
func (r *rekeying) lookAgain(ctx context.Context) error {
	for _, prefix := range ownPrefixes(r.ns.ID) {
		for after, more := "", true; more; more = after != "" {
			page, err := r.store.List(ctx, prefix, after, 0)
			if err != nil {
				return storeError(err)
			}
			for _, record := range page.Records {
				if err := r.lookAt(record); err != nil {
					return errors.Join(err, r.startOver(ctx))
				}
			}
			after = page.Next
		}
	}
	return nil
}

func (r *rekeying) lookAt(record store.Record) error {
	if !strings.HasPrefix(record.Key, prefixVersion) {
		_, err := decode[json.RawMessage](r.d.Alone(), record)
		return err
	}
	v, err := decode[versionRecord](r.d.Alone(), record)
	if err != nil || len(v.value.Material) == 0 {
		return err
	}
	if under, err := domain.SealedUnder(v.value.Material); err != nil || under != r.d.Generation() {
		return dataLoss(record.Key, fmt.Errorf("its material is sealed under generation %d: %w", under, domain.ErrNotAuthentic))
	}
	return nil
}
