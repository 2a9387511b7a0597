package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/audit"
)

// retentionInterval is how often old entries are looked for.
const retentionInterval = time.Hour

// errFirst ends a scan at its first entry.
var errFirst = errors.New("first entry")

// retain drops entries that are older than the configured retention: whole files
// of them, which a signed checkpoint covers. The tree's hashes stay.
func (s *Service) retain(ctx context.Context) error {
	if s.config.Retention <= 0 {
		return nil
	}
	keep := min(s.audit.Next(), s.intents.floor()) // open intents are needed at the next start
	cutoff := s.now().Add(-s.config.Retention)
	err := s.audit.Scan(ctx, audit.Filter{From: s.audit.Stats().First, Since: cutoff}, func(e audit.Entry) error {
		keep = min(keep, e.Sequence)
		return errFirst
	})
	if err != nil && !errors.Is(err, errFirst) {
		return readAuditError(err)
	}
	from, to, err := s.audit.DropBefore(ctx, keep)
	if from == to || err != nil {
		return readAuditError(err)
	}
	_, err = s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: "DropEntries", Outcome: string(OK),
		Details: map[string]string{"from": fmt.Sprint(from), "to": fmt.Sprint(to), "retention": s.config.Retention.String()}}, audit.Sync)
	return err
}

// dropOld runs retain from time to time.
func (s *Service) dropOld(ctx context.Context) {
	tick := time.NewTicker(retentionInterval)
	defer tick.Stop()
	for {
		s.round(ctx, "retention of the audit log", s.retain)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
