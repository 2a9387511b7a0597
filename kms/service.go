package kms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/internal/cow"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/internal/entropy"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/token"
)

// ErrNotInitialized says that the store holds no installation; `keywrightd init` makes one.
var ErrNotInitialized = errors.New("the store holds no installation yet")

// lockStripes is how many locks serialise the changes of keys.
const lockStripes = 256

// Service performs every operation. Make it with Open.
type Service struct {
	config  Config
	store   store.Store
	audit   *audit.Log
	hsm     HSM
	log     *slog.Logger
	now     func() time.Time
	started time.Time

	devices map[string]*device // by name of the token
	roots   atomic.Pointer[rootSet]
	seals   atomic.Pointer[seals]
	rewrap  atomic.Pointer[RewrapStatus]

	erasuresSeen atomic.Uint64 // the head's epoch that eraseWithRoots last looked at

	installation installationRecord
	system       *domain.Domain
	tokens       *token.Verifier
	tokenSigner  tokenSigner
	auditKeyLost bool // only while it is replaced
	random       entropy.Source

	head        head
	policies    policiesInForce
	revocations revocationsInForce
	leases      leaseCache
	quotas      quotas

	namespaces    *cow.Map[string, *namespace]
	namespaceLock sync.Mutex
	cache         cache
	locks         [lockStripes]sync.Mutex // by key id
	objects       *objects

	dirty       dirtyUsage
	intents     openIntents
	checkpoints checkpoints
	denials     denialCount
	counted     atomic.Pointer[KeyCounts]
	receivers   []*receiver
	alarmed     atomic.Int64 // second of the last alarm in the log
	clock       *clockGuard
	jobs        jobs
}

// Open finds the installation in the store and its root key on the token, and
// starts the background jobs. It creates nothing. ctx bounds the opening only.
func Open(ctx context.Context, c Config) (*Service, error) {
	s := newService(c.withDefaults())
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	open, err := s.checkFresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.completeSuccession(ctx, s.installation); err != nil {
		return nil, err
	}
	if err := s.auditBoot(); err != nil {
		return nil, err
	}
	if err := s.resolveIntents(ctx, open); err != nil {
		return nil, err
	}
	s.clock = newClockGuard(s.now(), s.installation.DevMode)
	s.startJobs()
	return s, nil
}

func newService(c Config) *Service {
	devices := newDevices(c)
	return &Service{config: c, store: c.Store, audit: c.Audit, hsm: devices[DefaultToken].hsm, devices: devices, log: c.Logger, now: c.Clock,
		started: c.Clock(), namespaces: cow.New[string, *namespace](), cache: newCache(c.CacheBytes), quotas: newQuotas(),
		objects: newObjects(), checkpoints: checkpoints{wake: make(chan struct{}, 1)}, receivers: newReceivers(c.Receivers)}
}

func (s *Service) load(ctx context.Context) error {
	for _, step := range []func(context.Context) error{s.checkTokens, s.loadInstallation, s.reseed, s.loadTokenSigner, s.loadHead, s.loadAuditKey} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// loadInstallation reads what the store remembers of the root key, finds that
// key on the token, and only then believes the record: by the system domain that
// the root key unwraps.
func (s *Service) loadInstallation(ctx context.Context) error {
	record, err := s.store.Get(ctx, pathInstallation)
	if errors.Is(err, store.ErrNotFound) {
		return ErrNotInitialized
	}
	if err != nil {
		return fmt.Errorf("read the installation: %w", err)
	}
	claimed, err := peek[installationRecord](record)
	if err != nil {
		return err
	}
	if claimed.Format < installationFormat || claimed.Format > formatManyRoots {
		return fmt.Errorf("%w: it is of format %d, this program reads and writes formats %d and %d: use the program that made it", store.ErrFormat, claimed.Format, installationFormat, formatManyRoots)
	}
	s.keepRoots(claimed)
	if err := s.findRoots(ctx); err != nil {
		return err
	}
	s.installation = claimed
	if s.system, _, err = s.openDomain(ctx, 0, 1); err != nil {
		return fmt.Errorf("open the system domain: %w", err)
	}
	verified, err := decode[installationRecord](s.system, record)
	if err != nil {
		return err
	}
	s.installation = verified.value
	s.keepRoots(verified.value)
	return nil
}

// openDomain unwraps a namespace's domain secret and verifies with it the very
// record that held it. It tells whether the domain was closed.
func (s *Service) openDomain(ctx context.Context, ns ID, generation uint32) (d *domain.Domain, closed bool, err error) {
	path := pathDomain(ns, generation)
	record, err := s.store.Get(ctx, path)
	if errors.Is(err, store.ErrNotFound) {
		return nil, false, dataLoss(path, err)
	}
	if err != nil {
		return nil, false, storeError(err)
	}
	claimed, err := peek[domainRecord](record)
	if err != nil {
		return nil, false, err
	}
	wrapping, err := s.rootOf(claimed.RootVersion)
	if err != nil {
		return nil, false, err
	}
	d, err = domain.Open(ctx, wrapping, s.domainID(ns, generation), claimed.Wrapped)
	if err != nil {
		return nil, false, hsmError(path, err)
	}
	verified, err := decode[domainRecord](d, record)
	return d.StoredAt(uint64(record.Revision)), !verified.value.Closed.IsZero(), err
}

func (s *Service) domainID(ns ID, generation uint32) domain.ID {
	return domain.ID{Installation: s.installation.ID, Namespace: uint64(ns), Generation: generation}
}

// reseed brings the token's randomness into the source that keys are made from.
func (s *Service) reseed(ctx context.Context) error {
	b, err := s.hsm.Random(ctx, entropy.SeedSize)
	if err != nil {
		return hsmError("random", err)
	}
	s.random.Seed([entropy.SeedSize]byte(b))
	return nil
}

// Close ends the background jobs and writes down what they still hold: use
// counts and times of last use. Calls still under way must have ended before.
func (s *Service) Close(ctx context.Context) error {
	s.stopJobs()
	err := errors.Join(s.flush(ctx), s.settleIntents(ctx))
	if err != nil {
		s.log.Warn("not all that memory held was stored; the next start makes up for it", "error", err)
	}
	_, auditErr := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: "Shutdown", Outcome: string(OK)}, audit.Sync)
	err = errors.Join(err, auditErr, s.makeCheckpoint(ctx))
	s.publishLast(ctx)
	return err
}

// auditBoot logs the start, and what a crash had left unfinished in the log.
func (s *Service) auditBoot() error {
	details := map[string]string{"installation": s.installation.ID.String(), "root": s.roots.Load().active[DefaultToken].ID.String()}
	if r := s.audit.Recovered(); r.Bytes > 0 {
		details["unfinished_tail_bytes"] = fmt.Sprint(r.Bytes)
	}
	_, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal,
		Action: "Start", Outcome: string(OK), Details: details}, audit.Sync)
	return err
}

// RecordDenied counts a call that could not be authenticated. Such failures reach
// the audit log summed up, so that outsiders cannot fill it.
func (s *Service) RecordDenied(source netip.Addr, reason string) { s.denials.add(source, reason) }

// hsmError gives a device's error the code that callers see.
func hsmError(path string, err error) error {
	var known *Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, ErrUnwrap), errors.Is(err, domain.ErrNotAuthentic):
		return dataLoss(path, err)
	case errors.Is(err, context.Canceled):
		return storeError(err)
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Message: "the deadline passed before the HSM answered", Cause: err}
	}
	return &Error{Code: Unavailable, Reason: "HSM_UNAVAILABLE", Message: awayMessage(err), Cause: err}
}
