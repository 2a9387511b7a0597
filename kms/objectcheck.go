package kms

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/keywright/keywright/kms/store"
)

// Pauses of the comparison of store and token: before the first, and between two.
const (
	firstCheckDelay = 15 * time.Second
	checkInterval   = time.Hour
)

// watchObjects compares store and token from time to time.
func (s *Service) watchObjects(ctx context.Context) {
	for wait := firstCheckDelay; ; wait = checkInterval {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			_ = s.tokenRound(ctx, s.checkObjects)
		}
	}
}

// checkObjects finds keys on the token that the store does not know, and versions
// whose key the token lacks, and reports them. It changes nothing: what is unknown
// may belong to another installation, and what is missing may come back.
func (s *Service) checkObjects(ctx context.Context) error {
	before, _, err := s.listObjects(ctx)
	if err != nil {
		return err
	}
	known, err := s.knownObjects(ctx)
	if err != nil {
		return err
	}
	counts := ObjectCounts{Time: s.now(), Held: int64(len(known.held))}
	unknown, missing, err := s.differences(ctx, before, known)
	if err != nil {
		return err
	}
	counts.Unknown, counts.Missing = int64(len(unknown)), int64(len(missing))
	s.objects.found.Store(&counts)
	if counts.Unknown > 0 {
		s.log.Warn("keys on the token are not known to the store; they were left alone, and may belong to another installation", "count", counts.Unknown, "some", some(unknown))
	}
	if counts.Missing > 0 {
		s.log.Error("the token lacks keys of versions that the store has", "count", counts.Missing, "some", some(missing))
	}
	return nil
}

// listObjects lists the keys on all tokens that answer, and tells whether all did.
// It fails if none does.
func (s *Service) listObjects(ctx context.Context) (ids []ObjectID, all bool, err error) {
	var failed []error
	for _, name := range s.tokenNames() {
		listed, err := s.devices[name].hsm.ListKeys(ctx)
		if err != nil {
			failed = append(failed, err)
		}
		ids = append(ids, listed...)
	}
	if len(failed) == len(s.devices) {
		return nil, false, hsmError("", errors.Join(failed...))
	}
	return ids, len(failed) == 0, nil
}

// some is enough of a list to look into it.
func some(ids []ObjectID) []ObjectID { return ids[:min(len(ids), 10)] }

// known is what the store says of the token's keys.
type known struct {
	held    map[ObjectID]string // their records' paths
	orphans map[ObjectID]string
}

func (s *Service) knownObjects(ctx context.Context) (k known, err error) {
	if k.orphans, err = s.objectsBelow(ctx, prefixOrphan); err == nil { // before held: that is where they go
		k.held, err = s.objectsBelow(ctx, prefixObject)
	}
	if err != nil {
		return k, err
	}
	wrapping, err := s.objectsBelow(ctx, prefixImport)
	maps.Copy(k.held, wrapping)
	return k, err
}

func (s *Service) objectsBelow(ctx context.Context, prefix string) (map[ObjectID]string, error) {
	found := map[ObjectID]string{}
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefix, after, store.MaxPageRecords)
		if err != nil {
			return nil, storeError(err)
		}
		for _, record := range page.Records {
			id, err := objectAt(record.Key)
			if err != nil {
				return nil, err
			}
			found[id] = record.Key
		}
		after = page.Next
	}
	return found, nil
}

// differences compares the token before and after the store was read, so that
// nothing that was made or removed meanwhile is taken for one.
func (s *Service) differences(ctx context.Context, before []ObjectID, k known) (unknown, missing []ObjectID, err error) {
	there := map[ObjectID]bool{}
	for _, id := range before {
		there[id] = true
		if k.held[id] == "" && k.orphans[id] == "" {
			unknown = append(unknown, id)
		}
	}
	for id := range k.held {
		if !there[id] {
			missing = append(missing, id)
		}
	}
	if len(unknown)+len(missing) == 0 {
		return nil, nil, nil
	}
	after, all, err := s.listObjects(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !all {
		missing = nil // they may be on the token that is away
	}
	unknown = slices.DeleteFunc(unknown, func(id ObjectID) bool { return !slices.Contains(after, id) })
	missing = slices.DeleteFunc(missing, func(id ObjectID) bool { return slices.Contains(after, id) || !s.stillHeld(ctx, k.held[id]) })
	return unknown, missing, nil
}

func (s *Service) stillHeld(ctx context.Context, path string) bool {
	_, err := s.store.Get(ctx, path)
	return !errors.Is(err, store.ErrNotFound)
}
