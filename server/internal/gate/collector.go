package gate

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keywright/keywright/kms"
)

// gauge is a figure read at the moment of a scrape.
type gauge struct {
	description *prometheus.Desc
	kind        prometheus.ValueType
	read        func(*kms.Status) float64
}

// collector reports the core's state and the gate's.
type collector struct {
	gate     *Gate
	gauges   []gauge
	tokens   []tokenGauge
	calls    *prometheus.Desc
	streams  *prometheus.Desc
	draining *prometheus.Desc
}

func newCollector(g *Gate) *collector {
	return &collector{
		gate:     g,
		gauges:   statusGauges(),
		tokens:   tokenGauges(),
		calls:    prometheus.NewDesc("keywright_calls_in_flight", "Calls being worked on, over gRPC and REST.", nil, nil),
		streams:  prometheus.NewDesc("keywright_streams_open", "Open gRPC streams.", nil, nil),
		draining: prometheus.NewDesc("keywright_draining", "1 while the server is shutting down.", nil, nil),
	}
}

func statusGauges() []gauge {
	level := func(name, help string, read func(*kms.Status) float64) gauge {
		return gauge{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, read}
	}
	count := func(name, help string, read func(*kms.Status) float64) gauge {
		return gauge{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, read}
	}
	return []gauge{
		level("keywright_hsm_healthy", "1 if the HSM answers.", func(s *kms.Status) float64 { return truth(s.HSM.Healthy) }),
		level("keywright_hsm_sessions_in_use", "Sessions with the HSM in use.", func(s *kms.Status) float64 { return float64(s.HSM.SessionsInUse) }),
		level("keywright_hsm_sessions_max", "Most sessions with the HSM.", func(s *kms.Status) float64 { return float64(s.HSM.SessionsMax) }),
		level("keywright_hsm_workers", "HSM worker processes that serve; 0 if the HSM is used in the server's process.", func(s *kms.Status) float64 { return float64(s.HSM.Workers) }),
		count("keywright_hsm_worker_restarts_total", "HSM worker processes that took the place of one that was lost.", func(s *kms.Status) float64 { return float64(s.HSM.WorkerRestarts) }),
		level("keywright_sealed", "1 while all keys are dropped from memory, because the HSM is away.", func(s *kms.Status) float64 { return truth(!s.Sealed.IsZero()) }),
		level("keywright_rewrap_remaining", "Domain secrets that wait to be wrapped by another version of the root key.", func(s *kms.Status) float64 { return float64(s.Rewrap.Remaining) }),
		level("keywright_hsm_keys_held", "Keys of protection level HSM on the token, compared every hour.", func(s *kms.Status) float64 { return float64(s.Objects.Held) }),
		level("keywright_hsm_keys_orphaned", "Keys on the token that no version owns and that are being removed.", func(s *kms.Status) float64 { return float64(s.Objects.Orphans) }),
		level("keywright_hsm_keys_unknown", "Keys on the token that the store does not know.", func(s *kms.Status) float64 { return float64(s.Objects.Unknown) }),
		level("keywright_hsm_keys_missing", "Key versions whose key the token lacks.", func(s *kms.Status) float64 { return float64(s.Objects.Missing) }),
		level("keywright_cache_keys", "Keys in memory.", func(s *kms.Status) float64 { return float64(s.Cache.Keys) }),
		level("keywright_cache_versions", "Key versions in memory.", func(s *kms.Status) float64 { return float64(s.Cache.Versions) }),
		level("keywright_cache_bytes", "Bytes of keys and versions in memory.", func(s *kms.Status) float64 { return float64(s.Cache.Bytes) }),
		level("keywright_cache_limit_bytes", "Most bytes of keys and versions in memory.", func(s *kms.Status) float64 { return float64(s.Cache.Limit) }),
		level("keywright_audit_healthy", "1 if the audit log can be written.", func(s *kms.Status) float64 { return truth(s.AuditProblem == "") }),
		count("keywright_audit_entries_total", "Entries of the audit log.", func(s *kms.Status) float64 { return float64(s.AuditNext) }),
		level("keywright_audit_queue", "Entries waiting to be written.", func(s *kms.Status) float64 { return float64(s.Audit.Queue) }),
		count("keywright_audit_synced_total", "Entries known to be on disk.", func(s *kms.Status) float64 { return float64(s.Audit.Synced) }),
		level("keywright_audit_bytes", "Size of the audit log.", func(s *kms.Status) float64 { return float64(s.Audit.Bytes) }),
		level("keywright_audit_sync_seconds", "Time the last fdatasync of the audit log took.", func(s *kms.Status) float64 { return s.Audit.SyncLatency.Seconds() }),
		count("keywright_audit_signed_total", "Entries that a signed checkpoint covers.", func(s *kms.Status) float64 { return float64(s.Audit.Signed) }),
		level("keywright_checkpoint_receivers_failing", "Files, commands and witnesses that did not take the last checkpoint.", failing),
		count("keywright_epoch", "Changes of policies, groups, revocations, namespaces, root versions and audit keys.", func(s *kms.Status) float64 { return float64(s.Epoch) }),
		level("keywright_keys_active", "Keys in the store, counted every few minutes.", func(s *kms.Status) float64 { return float64(s.Keys.Active) }),
		level("keywright_keys_deleted", "Deleted keys that the store remembers, counted every few minutes.", func(s *kms.Status) float64 { return float64(s.Keys.Deleted) }),
		level("keywright_destruction_paused", "1 while nothing is destroyed: after a start, or a jump of the clock.", func(s *kms.Status) float64 { return truth(s.DestructionPaused) }),
		level("keywright_store_bytes", "Size of the store.", func(s *kms.Status) float64 { return float64(s.StoreBytes) }),
		level("keywright_store_healthy", "1 if the store answers.", func(s *kms.Status) float64 { return truth(s.StoreProblem == "") }),
		count("keywright_store_revision", "Revision of the store.", func(s *kms.Status) float64 { return float64(s.StoreRevision) }),
		count("keywright_policy_revision", "Revision of the policies.", func(s *kms.Status) float64 { return float64(s.PolicyRevision) }),
	}
}

func failing(s *kms.Status) (n float64) {
	for _, r := range s.Receivers {
		n += truth(r.Problem != "")
	}
	return n
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, g := range c.gauges {
		out <- g.description
	}
	for _, g := range c.tokens {
		out <- g.description
	}
	out <- c.calls
	out <- c.streams
	out <- c.draining
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	status := c.gate.service.Health(context.Background())
	for _, g := range c.gauges {
		out <- prometheus.MustNewConstMetric(g.description, g.kind, g.read(&status))
	}
	c.collectTokens(out, &status)
	level := func(d *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	level(c.calls, float64(c.gate.calls.Load()))
	level(c.streams, float64(c.gate.streams.Load()))
	level(c.draining, truth(c.gate.draining.Err() != nil))
}
