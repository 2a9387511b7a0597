package kms

import (
	"context"
	"crypto/fips140"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// GetStatus describes the server to whom may know.
func (s *Service) GetStatus(ctx context.Context, call Call) (Status, error) {
	return perform(ctx, s, call, policy.GetStatus, struct{}{}, func(s *Service, ctx context.Context, t *trace, _ struct{}) (Status, error) {
		if err := s.authorize(t, policy.GetStatus, &policy.Resource{}, nil); err != nil {
			return Status{}, err
		}
		return s.Health(ctx), nil
	})
}

// Health describes the server to itself, for probes and metrics: it passes no
// policy, so no surface may show it to a caller whole.
func (s *Service) Health(ctx context.Context) Status {
	signer := s.checkpoints.current.Load().ref
	status := Status{InstallationID: s.installation.ID.String(), Started: s.started, DevMode: s.installation.DevMode,
		FIPS: fips140.Enabled(), PolicyRevision: s.policies.set.Load().Revision(), HSM: s.hsm.Status(),
		RootKeyID: s.roots.Load().active[DefaultToken].ID.String(), RootVersion: s.roots.Load().active[DefaultToken].Version,
		Tokens: s.tokenStatus(), Rewrap: s.rewrapStatus(),
		StoreName: s.config.StoreName, Keys: s.keyCounts(), DestructionPaused: s.clock.paused.Load(),
		AuditNext: s.audit.Next(), Audit: s.audit.Stats(), AuditDurability: s.audit.Durability(),
		SignerAlgorithm: signer.Algorithm, SignerProtection: signer.Protection,
		Epoch: s.head.epoch.Load(), Receivers: s.receiverStatus(),
		Cache: CacheStatus{Keys: s.cache.keys.Len(), Versions: s.cache.versions.Len(), Bytes: s.cache.bytes.Load(), Limit: s.cache.limit}}
	if found := s.objects.found.Load(); found != nil {
		status.Objects = *found
	}
	status.Objects.Orphans = s.objects.left.Load()
	if made := s.checkpoints.made.Load(); made > 0 {
		status.CheckpointTime = time.Unix(0, made)
	}
	if problem := *s.devices[DefaultToken].health.Load(); problem != "" {
		status.HSM.Healthy, status.HSM.Problem = false, problem
	}
	if seals := s.seals.Load(); s.sealed() {
		status.Sealed = seals.since(DefaultToken)
		status.HSM.Healthy, status.HSM.Problem = false, errSealed(s.awaySince(seals, DefaultToken)).Message
	}
	if err := s.audit.Health(); err != nil {
		status.AuditProblem = err.Error()
	}
	var err error
	if status.StoreRevision, err = s.store.Revision(ctx); err != nil {
		status.StoreProblem = err.Error()
	}
	status.StoreBytes, _ = s.store.Size(ctx)
	return status
}

// maxAuditPage is how many entries ListAudit returns at most.
const maxAuditPage = 10_000

// ListAudit returns the entries that a filter asks for, oldest first; with a
// namespace in the filter, the right to read that namespace's entries suffices.
func (s *Service) ListAudit(ctx context.Context, call Call, f audit.Filter) ([]audit.Entry, error) {
	return perform(ctx, s, call, policy.ReadAudit, f, func(s *Service, ctx context.Context, t *trace, f audit.Filter) ([]audit.Entry, error) {
		if err := s.admitAudit(ctx, t, f); err != nil {
			return nil, err
		}
		if f.Limit <= 0 || f.Limit > maxAuditPage {
			f.Limit = maxAuditPage
		}
		var entries []audit.Entry
		err := s.audit.Scan(ctx, f, func(e audit.Entry) error {
			entries = append(entries, e)
			return nil
		})
		return entries, readAuditError(err)
	})
}

// TailAudit calls fn for the last backlog entries that match and then for each
// new one, until ctx ends or fn fails. Its own audit record is written first.
func (s *Service) TailAudit(ctx context.Context, call Call, f audit.Filter, backlog int, fn func(audit.Entry) error) error {
	from, err := perform(ctx, s, call, policy.ReadAudit, f, func(s *Service, ctx context.Context, t *trace, f audit.Filter) (uint64, error) {
		return s.audit.Next(), s.admitAudit(ctx, t, f)
	})
	if err != nil {
		return err
	}
	if backlog > 0 {
		newest := f
		newest.Newest, newest.Limit, newest.To = true, backlog, from
		if err := s.audit.Scan(ctx, newest, fn); err != nil {
			return readAuditError(err)
		}
	}
	return readAuditError(s.audit.Tail(ctx, from, f, fn))
}

func (s *Service) admitAudit(ctx context.Context, t *trace, f audit.Filter) error {
	t.on(f.Namespace, "")
	resource, missing := s.policyResource(f.Namespace)(ctx)
	return s.permit(t, policy.ReadAudit, resource, nil, missing)
}

func readAuditError(err error) error {
	if err == nil || CodeOf(err) != Internal {
		return err
	}
	return storeError(err)
}
