package server

import (
	"context"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// alive is nil while the process can do its work at all: operations are refused
// when the audit log cannot be written.
func (g *gate) alive() error {
	if g.service.Health(context.Background()).AuditProblem != "" {
		return errHealth("the audit log cannot be written")
	}
	return nil
}

// ready is nil while requests should be sent here. An HSM that is away is no
// reason against: what was unwrapped is served, and metrics say so.
func (g *gate) ready() error {
	if g.draining.Err() != nil {
		return errHealth("the server is shutting down")
	}
	if g.service.Health(context.Background()).StoreProblem != "" {
		return errHealth("the store does not answer")
	}
	return g.alive()
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

// operatorHandler serves the listener for metrics.
func operatorHandler(g *gate) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.metrics.registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", probe(g.alive))
	mux.Handle("GET /readyz", probe(g.ready))
	return mux
}

// reportHealth tells gRPC's health service what ready says.
func reportHealth(g *gate, server *health.Server, names []string) {
	status := healthpb.HealthCheckResponse_SERVING
	if g.ready() != nil {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, name := range names {
		server.SetServingStatus(name, status)
	}
}
