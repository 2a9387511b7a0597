package kms

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/store"
)

// Difference is a record that is not what the audit log says was last written in
// its place.
type Difference struct {
	Path    string // in the store, "" for store and log as a whole
	Problem string
	Entry   uint64 // that last wrote or removed it, where there is one
}

// StoreReport is what VerifyStore found.
type StoreReport struct {
	Entries     uint64 // of the log that were read
	Records     uint64 // of the store that were compared
	Unknown     uint64 // records last written before the log's oldest entry
	Differences []Difference
}

// VerifyStore replays what the audit log says was written, and compares it with
// the records in the store, which it authenticates too. It changes nothing, takes
// memory for each change in the log, and calls progress, if given, now and then
// with the number of entries read. The server must be stopped. Counts of uses are
// not in the log, so they are not compared.
func VerifyStore(ctx context.Context, c Config, progress func(entries uint64)) (StoreReport, error) {
	s := newService(c.withDefaults())
	if err := s.loadInstallation(ctx); err != nil {
		return StoreReport{}, err
	}
	v := newStoreVerifier(s)
	v.progress = progress
	for _, step := range []func(context.Context) error{v.freshness, v.replay, v.compare} {
		if err := step(ctx); err != nil {
			return StoreReport{}, err
		}
	}
	v.missing()
	slices.SortFunc(v.report.Differences, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return v.report, nil
}

// write is what one entry says was written at a path; an empty digest is a removal.
type write struct {
	digest        string
	entry, intent uint64
	action        string
}

type domainPlace struct {
	namespace  ID
	generation uint32
}

type storeVerifier struct {
	*Service
	progress func(uint64)
	report   StoreReport
	written  map[string][]write // by path, oldest first
	domains  map[domainPlace]*domain.Domain
}

func newStoreVerifier(s *Service) *storeVerifier {
	return &storeVerifier{Service: s, written: map[string][]write{}, domains: map[domainPlace]*domain.Domain{}}
}

func (v *storeVerifier) differs(path string, entry uint64, format string, args ...any) {
	v.report.Differences = append(v.report.Differences, Difference{Path: path, Entry: entry, Problem: fmt.Sprintf(format, args...)})
}

// freshness notes what a start would refuse.
func (v *storeVerifier) freshness(ctx context.Context) error {
	for _, check := range []func(context.Context) error{v.loadHead, v.loadAuditKey, v.fresh} {
		if err := check(ctx); err != nil {
			v.differs("", 0, "%v", err)
		}
	}
	return ctx.Err()
}

func (v *storeVerifier) fresh(ctx context.Context) error {
	_, err := v.checkFresh(ctx)
	return err
}

const progressEvery = 100_000

func (v *storeVerifier) replay(ctx context.Context) error {
	open := map[uint64]audit.Entry{}
	err := v.audit.Scan(ctx, audit.Filter{From: v.audit.Stats().First}, func(e audit.Entry) error {
		switch {
		case e.Phase == audit.PhaseIntent:
			open[e.Sequence] = e
		case e.Phase == audit.PhaseOutcome && e.Reason != reasonOutcomeUnknown:
			delete(open, e.Intent)
		case e.Action == eventAcceptRollback:
			v.forget(e)
		}
		if e.Outcome == string(OK) {
			v.apply(e, e.Intent, e.Records)
		}
		if v.report.Entries++; v.progress != nil && v.report.Entries%progressEvery == 0 {
			v.progress(v.report.Entries)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	return v.applyOpen(ctx, open)
}

// applyOpen adds the changes of intents that a crash left open, but that were made.
func (v *storeVerifier) applyOpen(ctx context.Context, open map[uint64]audit.Entry) error {
	for _, sequence := range slices.Sorted(maps.Keys(open)) {
		mark, err := read[intentMark](ctx, v.Service, v.system, pathIntent(sequence))
		if err == nil {
			v.apply(open[sequence], sequence, mark.value.Records)
		}
	}
	return ctx.Err()
}

func (v *storeVerifier) apply(e audit.Entry, intent uint64, records map[string]string) {
	for path, digest := range records {
		v.written[path] = append(v.written[path], write{digest, e.Sequence, intent, e.Action})
	}
}

// forget removes what an accepted rollback of the store has undone. After one of
// the log, entries follow that say what is in the store (auditRecords).
func (v *storeVerifier) forget(e audit.Entry) {
	if strings.HasPrefix(e.Details[detailRollback], rollbackOfLog) {
		clear(v.written)
		return
	}
	from, err := strconv.ParseUint(e.Details[detailLostFrom], 10, 64)
	if err != nil {
		return // of an epoch alone
	}
	kept := strings.Split(e.Details[detailKept], ",")
	for path, history := range v.written {
		v.written[path] = slices.DeleteFunc(history, func(w write) bool {
			return w.intent >= from && !slices.Contains(kept, strconv.FormatUint(w.intent, 10))
		})
	}
}

// compare authenticates each record and holds it against the log.
func (v *storeVerifier) compare(ctx context.Context) error {
	return v.each(ctx, v.compareRecord)
}

// each calls fn for each record of the store, with its payload, or with why it
// cannot be believed.
func (v *storeVerifier) each(ctx context.Context, fn func(record store.Record, payload []byte, untrue error) error) error {
	for after, more := "", true; more; more = after != "" {
		page, err := v.store.List(ctx, "", after, store.MaxPageRecords)
		if err != nil {
			return storeError(err)
		}
		for _, record := range page.Records {
			payload, untrue := v.authentic(ctx, record)
			if untrue != nil && CodeOf(untrue) != DataLoss {
				return untrue
			}
			if err := fn(record, payload, untrue); err != nil {
				return err
			}
		}
		after = page.Next
	}
	return nil
}

// authentic returns a record's payload, or DATA_LOSS.
func (v *storeVerifier) authentic(ctx context.Context, record store.Record) ([]byte, error) {
	d, err := v.domainFor(ctx, record)
	if err != nil {
		return nil, err
	}
	payload, err := d.Verify(record.Key, uint64(record.Revision), record.Value)
	if err != nil {
		err = dataLoss(record.Key, err)
	}
	return payload, err
}

func (v *storeVerifier) compareRecord(record store.Record, payload []byte, untrue error) error {
	v.report.Records++
	history := v.written[record.Key]
	delete(v.written, record.Key)
	switch {
	case untrue != nil:
		v.differs(record.Key, lastOf(history).entry, "it fails authentication: it was edited, or moved here from elsewhere")
	case isRecorded(record.Key):
		v.compareHistory(record.Key, recordDigest(sha256.Sum256(payload)), history)
	}
	return nil
}

func (v *storeVerifier) compareHistory(path, digest string, history []write) {
	last := lastOf(history)
	earlier := slices.IndexFunc(history, func(w write) bool { return w.digest == digest })
	switch {
	case last.digest == digest:
	case len(history) == 0 && v.audit.Stats().First > 0:
		v.report.Unknown++
	case len(history) == 0:
		v.differs(path, 0, "no entry of the log wrote it")
	case earlier >= 0:
		v.differs(path, last.entry, "it was put back to what entry %d (%s) wrote; entry %d (%s) changed it since",
			history[earlier].entry, history[earlier].action, last.entry, last.action)
	case last.digest == "":
		v.differs(path, last.entry, "entry %d (%s) removed it, but it is there", last.entry, last.action)
	default:
		v.differs(path, last.entry, "it is not what entry %d (%s) wrote last", last.entry, last.action)
	}
}

func lastOf(history []write) write {
	if len(history) == 0 {
		return write{}
	}
	return history[len(history)-1]
}

// missing names what the log says is there, and was not met in the store.
func (v *storeVerifier) missing() {
	for path, history := range v.written {
		if last := lastOf(history); last.digest != "" {
			v.differs(path, last.entry, "it is missing; entry %d (%s) wrote it", last.entry, last.action)
		}
	}
}

// domainFor returns the domain that a record claims to be authenticated by.
func (v *storeVerifier) domainFor(ctx context.Context, record store.Record) (*domain.Domain, error) {
	namespace, generation, err := domain.Claimed(record.Value)
	if err != nil {
		return nil, dataLoss(record.Key, err)
	}
	if namespace == 0 {
		return v.system, nil
	}
	place := domainPlace{ID(namespace), generation}
	if d, ok := v.domains[place]; ok {
		return d, nil
	}
	d, _, err := v.openDomain(ctx, place.namespace, generation)
	if err == nil {
		v.domains[place] = d
	}
	return d, err
}

// recordsPerEntry bounds the entries that auditRecords writes.
const recordsPerEntry = 1000

// auditRecords has the log say what is in the store, where entries that said so
// are lost. What is not authentic is left out.
func (s *Service) auditRecords(ctx context.Context) error {
	records := map[string]string{}
	flush := func() error {
		_, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal,
			Action: "AcceptRecords", Outcome: string(OK), Records: records}, audit.Sync)
		clear(records)
		return err
	}
	err := newStoreVerifier(s).each(ctx, func(record store.Record, payload []byte, untrue error) error {
		if untrue != nil || !isRecorded(record.Key) {
			return nil //nolint:nilerr // verify-store names it; here it is left out
		}
		records[record.Key] = recordDigest(sha256.Sum256(payload))
		if len(records) < recordsPerEntry {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil && CodeOf(err) == Internal {
		err = auditError(err)
	}
	return err
}
