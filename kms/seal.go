package kms

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
)

// OnLoss says what becomes of unwrapped keys when a token is away.
type OnLoss string

// OnLossServe goes on with what is unwrapped; OnLossSeal drops it from memory once
// the token has been away for Config.OnLossAfter, and unwraps it again when the
// token is back.
const (
	OnLossServe OnLoss = "serve"
	OnLossSeal  OnLoss = "seal"
)

// seals is since when which tokens are sealed; immutable, nil where none is.
type seals struct{ at map[string]time.Time }

// since returns the zero time for a token that is not sealed.
func (s *seals) since(token string) time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.at[tokenName(token)]
}

// with returns the seals with one more, or, at the zero time, one less.
func (s *seals) with(token string, at time.Time) *seals {
	next := &seals{map[string]time.Time{}}
	if s != nil {
		maps.Copy(next.at, s.at)
	}
	if next.at[token] = at; at.IsZero() {
		delete(next.at, token)
	}
	if len(next.at) == 0 {
		return nil
	}
	return next
}

// errSealed refuses what needs keys that were dropped; the time is zero where it
// is not known.
func errSealed(since time.Time) *Error { return errTokenSealed(DefaultToken, since) }

func errTokenSealed(token string, since time.Time) *Error {
	what := "the HSM"
	if token != DefaultToken {
		what = fmt.Sprintf("the HSM token %q", token)
	}
	e := &Error{Code: Unavailable, Reason: "SEALED", Message: "sealed: " + what + " is away, and keys are dropped from memory until it is back; try again then"}
	if !since.IsZero() {
		e.Message = fmt.Sprintf("sealed: %s has been away since %s, and keys are dropped from memory until it is back; try again then", what, since.UTC().Format(time.RFC3339))
	}
	return e
}

// sealed tells whether the default token is sealed, and so everything.
func (s *Service) sealed() bool { return !s.seals.Load().since(DefaultToken).IsZero() }

// refuseSealed refuses what needs keys of a token that is sealed: with the default
// one all but looking at the server and its log.
func (s *Service) refuseSealed(at *seals, action policy.Action, namespace string) error {
	switch action {
	case policy.GetStatus, policy.ReadAudit, policy.GetCheckpoint, policy.ListRoots:
		return nil
	}
	if since := s.awaySince(at, DefaultToken); !since.IsZero() {
		return errSealed(since)
	}
	if ns, ok := s.namespaces.Load(namespace); ok {
		return s.refuseToken(at, ns.Token)
	}
	return nil
}

func (s *Service) refuseToken(at *seals, token string) error {
	for _, name := range []string{DefaultToken, tokenName(token)} {
		if since := s.awaySince(at, name); !since.IsZero() {
			return errTokenSealed(name, since)
		}
	}
	return nil
}

// awaySince is since when a token that is sealed has been away.
func (s *Service) awaySince(at *seals, token string) time.Time {
	since := at.since(token)
	if d := s.devices[token]; d != nil && !since.IsZero() {
		if away := d.away.Load(); away != 0 {
			since = time.Unix(0, away)
		}
	}
	return since
}

// probe asks the device, and notes since when it does not answer.
func (d *device) probe(ctx context.Context, now time.Time) error {
	err := d.hsm.Probe(ctx)
	if err == nil {
		d.failed = 0
		d.away.Store(0)
		return nil
	}
	if d.failed++; d.failed == 1 {
		d.away.CompareAndSwap(0, now.UnixNano())
	}
	return err
}

// followLoss seals after a token has been away long enough, and unseals when it is
// back. The caller holds the device's lock.
func (s *Service) followLoss(ctx context.Context, d *device) {
	sealed, away := !s.seals.Load().since(d.name).IsZero(), d.away.Load()
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	switch {
	case sealed && away == 0:
		if err := s.unsealToken(ctx, d); err != nil && ctx.Err() == nil {
			s.log.Error("the HSM is back, but the server stays sealed; it is tried again", "token", d.name, "code", CodeOf(err), "error", err)
		}
	case !sealed && s.config.OnLoss == OnLossSeal && d.failed >= probesToFail && s.now().Sub(time.Unix(0, away)) >= s.config.OnLossAfter:
		s.sealToken(ctx, d)
	}
}

// setSeal puts a seal on a token, or takes it off.
func (s *Service) setSeal(token string, at time.Time) {
	for {
		old := s.seals.Load()
		if s.seals.CompareAndSwap(old, old.with(token, at)) {
			return
		}
	}
}

// sealToken refuses what needs the keys of a token and drops them from memory: with the
// default one all that there are. Calls under way may still end.
func (s *Service) sealToken(ctx context.Context, d *device) {
	if err := s.flush(ctx); err != nil {
		s.log.Warn("counts of uses could not be stored before sealing; they are made up for", "error", err)
	}
	s.setSeal(d.name, s.now())
	affected := map[ID]bool{}
	for _, ns := range s.namespaces.All() {
		if d.name == DefaultToken || tokenName(ns.Token) == d.name {
			affected[ns.ID] = true
			ns.domain.drop()
		}
	}
	s.dropKeys(affected)
	if d.name == DefaultToken {
		s.system.Drop()
		s.tokenSigner.drop()
		s.forgetAuditKey()
	}
	debug.FreeOSMemory() // collects what is dropped now, not at some later time
	s.log.Error("sealed: the HSM is away, keys are dropped from memory", "token", d.name, "since", time.Unix(0, d.away.Load()).UTC())
	s.auditSeal("Seal", d)
}

func (s *Service) auditSeal(action string, d *device) {
	details := map[string]string{"token": d.name}
	if away := d.away.Load(); away != 0 {
		details["away_since"] = time.Unix(0, away).UTC().Format(time.RFC3339)
	}
	_, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: action,
		Outcome: string(OK), Details: details}, audit.Sync)
	if err != nil {
		s.log.Error("sealing or unsealing was not logged", "error", err)
	}
}

// drop forgets a namespace's domain, and takes its keys from who still holds it.
func (l *lazyDomain) drop() {
	l.open.Lock()
	defer l.open.Unlock()
	for {
		old := l.state.Load()
		if !l.state.CompareAndSwap(old, &domainState{generations: old.generations}) {
			continue
		}
		for _, d := range []*domain.Domain{old.opened, old.older} {
			if d != nil {
				d.Drop()
			}
		}
		return
	}
}

// dropKeys empties the cache of the keys of some namespaces. Each stripe's lock is
// waited for, so that nothing that was being loaded is put there afterwards.
func (s *Service) dropKeys(of map[ID]bool) {
	for i := range s.locks {
		s.locks[i].Lock()
		for id, v := range s.cache.versions.All() {
			if uint64(id.key)%lockStripes == uint64(i) && of[v.usage.ns.ID] {
				s.cache.dropVersion(id.key, id.number)
			}
		}
		for id, k := range s.cache.keys.All() {
			if uint64(id)%lockStripes == uint64(i) && of[k.ns.ID] {
				s.cache.dropKey(k)
			}
		}
		s.locks[i].Unlock()
	}
}

// unsealToken opens what is needed again, the rest on first use. On failure the token
// stays sealed.
func (s *Service) unsealToken(ctx context.Context, d *device) error {
	if d.name == DefaultToken {
		opened, _, err := s.openDomain(ctx, 0, 1)
		if err != nil {
			return err
		}
		s.system.Restore(opened)
		for _, step := range []func(context.Context) error{s.loadTokenSigner, s.recallAuditKey, s.reseed, s.followHead} {
			if err := step(ctx); err != nil {
				s.system.Drop()
				s.tokenSigner.drop()
				return err
			}
		}
	}
	s.setSeal(d.name, time.Time{})
	s.log.Info("unsealed: the HSM is back", "token", d.name)
	s.auditSeal("Unseal", d)
	return nil
}

// errForgotten is what signs nothing while the server is sealed.
var errForgotten = errors.New("the audit key is dropped from memory: the server is sealed")

type forgottenSigner struct{}

// Sign implements checkpoint.Signer.
func (forgottenSigner) Sign(context.Context, []byte) ([]byte, error) { return nil, errForgotten }

// forgetAuditKey drops an audit key that is sealed under the root key; one on the
// token is not in memory.
func (s *Service) forgetAuditKey() {
	s.checkpoints.lock.Lock()
	defer s.checkpoints.lock.Unlock()
	current := *s.checkpoints.current.Load()
	if inMemory, ok := current.signer.(sealedSigner); ok {
		current.signer = forgottenSigner{}
		s.checkpoints.current.Store(&current)
		clear(inMemory.key)
	}
}

// recallAuditKey takes forgetAuditKey back.
func (s *Service) recallAuditKey(ctx context.Context) error {
	s.checkpoints.lock.Lock()
	defer s.checkpoints.lock.Unlock()
	current := s.checkpoints.current.Load()
	if _, forgotten := current.signer.(forgottenSigner); !forgotten {
		return nil
	}
	opened, err := s.openAuditKey(ctx, current.ref)
	if err == nil {
		s.checkpoints.current.Store(&opened)
	}
	return err
}
