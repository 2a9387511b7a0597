package kms

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/audit"
)

// Pauses between rounds of the jobs that do not run in every round.
const (
	flushInterval  = 30 * time.Second
	probeInterval  = 1500 * time.Millisecond // so that a device that hangs is told within 5 s
	reseedInterval = 10 * time.Minute
	denialInterval = 10 * time.Second
	countInterval  = 2 * time.Minute
	jobTimeout     = time.Minute
)

// probesToFail is how many probes must fail in a row before the HSM counts as
// away: one is noise.
const probesToFail = 2

// jobs runs in the background from Open to Close.
type jobs struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	rotate chan *key

	rotateOnToken chan *key // of protection level HSM
}

// rotateSoon asks for a rotation before the random nonces run out. When too many
// ask at once, the next block that is reserved asks again.
func (j *jobs) rotateSoon(k *key) {
	queue := j.rotate
	if k.Protection == HSMLevel {
		queue = j.rotateOnToken
	}
	select {
	case queue <- k:
	default:
	}
}

func (s *Service) startJobs() {
	ctx, cancel := context.WithCancel(context.Background())
	s.jobs = jobs{stop: cancel, rotate: make(chan *key, 64), rotateOnToken: make(chan *key, 64)}
	for _, d := range s.devices {
		s.jobs.done.Go(func() { s.watchHSM(ctx, d) })
	}
	s.jobs.done.Go(func() { s.watchHead(ctx) })
	s.jobs.done.Go(func() { s.signCheckpoints(ctx) })
	s.jobs.done.Go(func() { s.dropOld(ctx) })
	for _, r := range s.receivers {
		s.jobs.done.Go(func() { s.feed(ctx, r) })
	}
	s.jobs.done.Go(func() { s.runJobs(ctx) })
	s.jobs.done.Go(func() { s.countKeys(ctx) })
	s.jobs.done.Go(func() { s.tendNamespaces(ctx) })
	s.jobs.done.Go(func() { s.tendToken(ctx) })
	s.jobs.done.Go(func() { s.watchObjects(ctx) })
	s.jobs.done.Go(func() { s.tendRoots(ctx) })
}

func (s *Service) stopJobs() {
	s.jobs.stop()
	s.jobs.done.Wait()
}

func (s *Service) runJobs(ctx context.Context) {
	tick := time.NewTicker(s.config.JobInterval)
	defer tick.Stop()
	flush, denials := time.NewTicker(flushInterval), time.NewTicker(denialInterval)
	defer flush.Stop()
	defer denials.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flushDenials()
			return
		case <-tick.C:
			s.round(ctx, "due jobs", s.runDue)
			s.round(ctx, "settled intents", s.settleIntents)
			s.evict(ctx)
		case <-flush.C:
			s.round(ctx, "times of last use", s.flushDirty)
		case <-denials.C:
			s.flushDenials()
		case k := <-s.jobs.rotate:
			s.round(ctx, "rotation by use", func(ctx context.Context) error { return s.rotateSpent(ctx, k) })
		}
	}
}

func (s *Service) round(ctx context.Context, name string, run func(context.Context) error) {
	if s.sealed() {
		return // nothing can be read or written; what waits goes on afterwards
	}
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("background round failed", "round", name, "code", CodeOf(err), "error", err)
	}
}

// watchHSM probes a device, tells its health, and reads fresh randomness from the
// default one.
func (s *Service) watchHSM(ctx context.Context, d *device) {
	tick, reseed := time.NewTicker(probeInterval), time.NewTicker(reseedInterval)
	defer tick.Stop()
	defer reseed.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-reseed.C:
			if d.name == DefaultToken {
				s.round(ctx, "reseeding", s.reseed)
			}
		case <-tick.C:
			s.probe(ctx, d)
		}
	}
}

func (s *Service) probe(ctx context.Context, d *device) {
	d.watch.Lock()
	defer d.watch.Unlock()
	probing, cancel := context.WithTimeout(ctx, probeInterval)
	defer cancel()
	err := d.probe(probing, s.now())
	switch {
	case err == nil:
		s.noteHSM(d, "")
	case d.failed == probesToFail:
		s.noteHSM(d, "the HSM does not answer: "+err.Error())
	}
	s.followLoss(ctx, d)
}

// countKeys counts the store's keys from time to time, for metrics and the status.
func (s *Service) countKeys(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		s.round(ctx, "counting keys", s.count)
		select {
		case <-ctx.Done():
		// However many there are, counting takes a hundredth of the time.
		case <-time.After(max(countInterval, 100*time.Since(began))):
		}
	}
}

func (s *Service) count(ctx context.Context) error {
	active, err := s.countRecords(ctx, prefixKeyName)
	if err != nil {
		return err
	}
	made, err := s.countRecords(ctx, prefixKeyID)
	if err == nil {
		s.counted.Store(&KeyCounts{Active: active, Deleted: max(made-active, 0), PlaintextExport: s.countPlaintextExport()})
	}
	return err
}

func (s *Service) countPlaintextExport() (n int64) {
	for _, ns := range s.namespaces.All() {
		if ns.PlaintextExport && ns.State != NamespaceDeleted {
			n++
		}
	}
	return n
}

func (s *Service) countRecords(ctx context.Context, prefix string) (n int64, err error) {
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefix, after, 0)
		if err != nil {
			return 0, storeError(err)
		}
		n, after = n+int64(len(page.Records)), page.Next
	}
	return n, nil
}

func (s *Service) keyCounts() KeyCounts {
	if counted := s.counted.Load(); counted != nil {
		return *counted
	}
	return KeyCounts{}
}

// noteHSM tells of a change in the device's health, in the log and the audit log.
func (s *Service) noteHSM(d *device, problem string) {
	if before := d.health.Swap(&problem); *before == problem {
		return
	}
	entry := audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: "HSMHealth", Outcome: string(OK)}
	if d.name != DefaultToken {
		entry.Details = map[string]string{"token": d.name}
	}
	if problem != "" {
		entry.Outcome = string(Unavailable)
		s.log.Error("HSM away; keys already unwrapped go on serving", "token", d.name, "problem", problem)
	} else {
		s.log.Info("HSM is back", "token", d.name)
	}
	if _, err := s.audit.Append(&entry, audit.Sync); err != nil {
		s.log.Error("HSM health was not logged", "error", err)
	}
}

// denialCount sums up calls that could not be authenticated.
type denialCount struct {
	lock    sync.Mutex
	counts  map[denial]int
	dropped int
}

type denial struct {
	source netip.Addr
	reason string
}

// maxDenialSources bounds the memory that outsiders can take up.
const maxDenialSources = 256

func (d *denialCount) add(source netip.Addr, reason string) {
	d.lock.Lock()
	defer d.lock.Unlock()
	if d.counts == nil {
		d.counts = map[denial]int{}
	}
	key := denial{source, reason}
	if _, known := d.counts[key]; !known && len(d.counts) >= maxDenialSources {
		d.dropped++
		return
	}
	d.counts[key]++
}

func (d *denialCount) take() (map[denial]int, int) {
	d.lock.Lock()
	defer d.lock.Unlock()
	counts, dropped := d.counts, d.dropped
	d.counts, d.dropped = nil, 0
	return counts, dropped
}

func (s *Service) flushDenials() {
	counts, dropped := s.denials.take()
	if dropped > 0 {
		counts[denial{reason: "OTHER_SOURCES"}] = dropped
	}
	for d, n := range counts {
		entry := audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Action: "Authenticate", Decision: audit.Deny,
			Outcome: string(Unauthenticated), Reason: d.reason, Details: map[string]string{"count": fmt.Sprint(n)}}
		if d.source.IsValid() {
			entry.Source = d.source.String()
		}
		if _, err := s.audit.Append(&entry, audit.Hot); err != nil {
			s.log.Error("failed authentications were not logged", "count", n, "error", err)
		}
	}
}
