package gate

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
)

// Metrics counts for Prometheus. It is the kms.Observer of the core that a
// Server serves. No label holds a key's, a namespace's or a principal's name.
type Metrics struct {
	registry *prometheus.Registry

	operations   *prometheus.CounterVec
	seconds      *prometheus.HistogramVec
	items        *prometheus.CounterVec
	device       *prometheus.HistogramVec
	deviceErrors *prometheus.CounterVec
	scheduled    *prometheus.CounterVec
	authFailures *prometheus.CounterVec
	rejected     prometheus.Counter
	panics       prometheus.Counter

	counters   cowMap[operationLabels, prometheus.Counter]
	histograms cowMap[timeLabels, prometheus.Observer]
}

type operationLabels struct {
	action    policy.Action
	algorithm string
	code      kms.Code
}

type timeLabels struct {
	action    policy.Action
	algorithm string
}

// NewMetrics makes the metrics with a registry of their own, which also has
// those of the Go runtime and the process.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keywright_operations_total",
			Help: "Operations by action, algorithm (empty where none is involved) and outcome."}, []string{"action", "algorithm", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "keywright_operation_seconds",
			Help:    "Time an operation took in the core, audit record included.",
			Buckets: []float64{5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.25, 1, 5, 30},
		}, []string{"action", "algorithm"}),
		items: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keywright_batch_items_total",
			Help: "Items of batches by action."}, []string{"action"}),
		device: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "keywright_hsm_call_seconds",
			Help:    "Time a call of the HSM took.",
			Buckets: []float64{1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 1, 5},
		}, []string{"call"}),
		deviceErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keywright_hsm_errors_total",
			Help: "Calls of the HSM that failed."}, []string{"call"}),
		scheduled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keywright_scheduled_uses_total",
			Help: "Uses, refused, of keys and versions that are scheduled for destruction."}, []string{"action"}),
		authFailures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keywright_auth_failures_total",
			Help: "Requests and handshakes whose credentials were missing or refused."}, []string{"reason"}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{Name: "keywright_rejected_total",
			Help: "Calls and streams refused because too many were in flight."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "keywright_panics_total",
			Help: "Panics that were recovered from."}),
	}
	m.registry.MustRegister(m.operations, m.seconds, m.items, m.device, m.deviceErrors, m.scheduled, m.authFailures, m.rejected, m.panics,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registry is where further collectors may be registered.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Operation implements kms.Observer.
func (m *Metrics) Operation(action policy.Action, algorithm string, code kms.Code, elapsed time.Duration) {
	m.counters.get(operationLabels{action, algorithm, code}, func() prometheus.Counter {
		return m.operations.WithLabelValues(string(action), algorithm, string(code))
	}).Inc()
	m.histograms.get(timeLabels{action, algorithm}, func() prometheus.Observer {
		return m.seconds.WithLabelValues(string(action), algorithm)
	}).Observe(elapsed.Seconds())
}

// Items implements kms.Observer.
func (m *Metrics) Items(action policy.Action, n int) {
	m.items.WithLabelValues(string(action)).Add(float64(n))
}

// ScheduledUse implements kms.Observer.
func (m *Metrics) ScheduledUse(action policy.Action) {
	m.scheduled.WithLabelValues(string(action)).Inc()
}

// Device implements kms.Observer.
func (m *Metrics) Device(call string, failed bool, elapsed time.Duration) {
	m.device.WithLabelValues(call).Observe(elapsed.Seconds())
	if failed {
		m.deviceErrors.WithLabelValues(call).Inc()
	}
}

// cowMap is a map that readers look up without a lock or an allocation; it is
// copied to add to it, which happens a few times in a server's life.
type cowMap[K comparable, V any] struct {
	current atomic.Pointer[map[K]V]
	mu      sync.Mutex // of writers
}

func (c *cowMap[K, V]) get(key K, make func() V) V {
	if known := c.current.Load(); known != nil {
		if v, ok := (*known)[key]; ok {
			return v
		}
	}
	return c.add(key, make())
}

func (c *cowMap[K, V]) add(key K, value V) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[K]V{}
	if known := c.current.Load(); known != nil {
		next = maps.Clone(*known)
	}
	next[key] = value
	c.current.Store(&next)
	return value
}
