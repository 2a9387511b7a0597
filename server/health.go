package server

import (
	"context"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// alive is nil while the process can do its work at all: operations are refused
// when the audit log cannot be written.
func (s *Server) alive() error {
	if s.config.Service.Health(context.Background()).AuditProblem != "" {
		return errHealth("the audit log cannot be written")
	}
	return nil
}

// ready is nil while requests should be sent here. An HSM that is away is no
// reason against: what was unwrapped is served, and metrics say so.
func (s *Server) ready() error {
	if s.gate.Draining() {
		return errHealth("the server is shutting down")
	}
	status := s.config.Service.Health(context.Background())
	if status.StoreProblem != "" {
		return errHealth("the store does not answer")
	}
	if !status.Sealed.IsZero() {
		return errHealth("the server is sealed: the HSM is away")
	}
	return s.alive()
}

// errHealth is told to anyone, so it is one of a few fixed sentences.
type errHealth string

func (e errHealth) Error() string { return string(e) }

// probe answers a health request.
func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, err.Error()+"\n")
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	}
}

// probes serves the health requests of HTTP.
func (s *Server) probes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", probe(s.alive))
	mux.Handle("GET /readyz", probe(s.ready))
	return mux
}

// operatorHandler serves the listener for metrics.
func (s *Server) operatorHandler() http.Handler {
	mux := s.probes()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.config.Metrics.Registry(), promhttp.HandlerOpts{}))
	return mux
}

// reportHealth tells gRPC's health service what ready says.
func (s *Server) reportHealth() {
	status := healthpb.HealthCheckResponse_SERVING
	if s.ready() != nil {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, name := range s.names {
		s.health.SetServingStatus(name, status)
	}
}
