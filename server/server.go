package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/keywright/keywright/server/internal/api"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/identity"
	"github.com/keywright/keywright/server/internal/rest"
	"github.com/keywright/keywright/server/kube"
	"github.com/keywright/keywright/server/vault"
)

const (
	watchInterval    = 2 * time.Second  // of certificate files and of readiness
	handshakeTimeout = 10 * time.Second // also for an HTTP request's header
	bodyTimeout      = 60 * time.Second
	idleTimeout      = 2 * time.Minute
	maxHeaderBytes   = 32 << 10
	maxStreams       = 1 << 16 // of a connection; the gate bounds what runs
	streamWindow     = 1 << 20 // bytes a client may send ahead on a call; grpc-go adds what a longer message needs
	connectionWindow = 4 << 20 // bytes that a client may send ahead on all its calls
	streamWorkers    = 64      // a call that finds none free gets a goroutine of its own
)

// Server is the set of listeners and what they serve.
type Server struct {
	config Config
	gate   *gate.Gate
	files  *identity.Files // nil in plaintext
	grpc   *grpc.Server
	health *health.Server
	names  []string // of the services, for health; "" is all

	web       []web
	listeners map[string]net.Listener // by "grpc", "rest", "vault", "metrics"
	sockets   []net.Listener
	kube      []*kube.Plugin
}

// web is an HTTP server and its listener.
type web struct {
	server   *http.Server
	listener net.Listener
	secure   bool
	operator bool // metrics and probes
}

// New opens the listeners and loads the certificates; nothing is served before
// Serve. If Serve is not called, Close must be.
func New(c Config) (*Server, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	g, err := gate.New(gate.Options{Service: c.Service, Metrics: c.Metrics, Logger: c.Logger, Clock: c.Clock,
		MaxInFlight: c.MaxInFlight, CallTimeout: c.CallTimeout, MaxFailures: c.FailedAuthentications, StreamAge: c.ConnectionAge * 5 / 4})
	if err != nil {
		return nil, err
	}
	s := &Server{config: c, gate: g, listeners: map[string]net.Listener{}}
	if err := errors.Join(s.loadFiles(), s.listen(), s.listenSockets(), s.listenKubernetes()); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.build(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) loadFiles() error {
	if s.config.Plaintext {
		return nil
	}
	if s.config.TLS.CertFile == "" || s.config.TLS.KeyFile == "" {
		return errors.New("TLS needs a certificate and a key; plaintext must be asked for and is for loopback addresses only")
	}
	var err error
	s.files, err = identity.LoadFiles(identity.FilesOptions{
		CertFile: s.config.TLS.CertFile, KeyFile: s.config.TLS.KeyFile, ClientCAs: s.config.TLS.ClientCAs,
		Clock: s.config.Clock, Logger: s.config.Logger, Denied: s.gate.Denied,
	})
	return err
}

func (s *Server) listen() error {
	for name, address := range map[string]string{"grpc": s.config.GRPCAddress, "rest": s.config.RESTAddress, "vault": s.config.Vault.Address, "metrics": s.config.MetricsAddress} {
		if address == "" {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("%s listener: %w", name, err)
		}
		s.listeners[name] = identity.Listener{Listener: listener}
		if s.config.Plaintext && name != "metrics" && !isLoopback(listener.Addr()) {
			return fmt.Errorf("%s listener: plaintext is refused on %s, which is not a loopback address; use 127.0.0.1 or [::1], or configure TLS", name, address)
		}
	}
	return nil
}

func (s *Server) listenSockets() error {
	for _, socket := range s.config.Sockets {
		listener, err := identity.ListenUnix(socket)
		if err != nil {
			return err
		}
		s.sockets = append(s.sockets, listener)
	}
	return nil
}

func (s *Server) listenKubernetes() error {
	for _, socket := range s.config.Kubernetes {
		plugin, err := kube.New(s.gate, s.config.Service, s.config.Logger, socket)
		if err != nil {
			return err
		}
		s.kube = append(s.kube, plugin)
	}
	return nil
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// build makes what the listeners serve.
func (s *Server) build() error {
	a := api.New(s.gate, s.config.Service, s.config.Version)
	s.grpc = grpc.NewServer(
		grpc.Creds(s.files.Credentials()),
		gate.CodecOption(),
		grpc.StreamInterceptor(s.gate.Stream),
		grpc.MaxRecvMsgSize(s.config.MaxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		// Fixed windows: else grpc-go pings each client all the time to learn how large they should be.
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: handshakeTimeout, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: idleTimeout, MaxConnectionAge: s.config.ConnectionAge}),
		grpc.WaitForHandlers(true),
		// Goroutines that stay: growing the stack of a new one for each call was
		// the largest part of a call's CPU time.
		grpc.NumStreamWorkers(streamWorkers),
	)
	a.Register(s.grpc)
	s.names = []string{""}
	for _, service := range a.Services() {
		s.names = append(s.names, service.Name)
	}
	s.health = health.NewServer()
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s.buildWeb(a)
}

func (s *Server) buildWeb(a *api.API) error {
	if listener, ok := s.listeners["metrics"]; ok {
		s.web = append(s.web, web{s.httpServer(s.operatorHandler()), listener, false, true})
	}
	if listener, ok := s.listeners["rest"]; ok {
		handler, err := rest.New(rest.Options{Gate: s.gate, API: a, Logger: s.config.Logger, MaxBytes: s.config.MaxMessageBytes, Probes: s.probes()})
		if err != nil {
			return fmt.Errorf("REST: %w", err)
		}
		s.addWeb(listener, handler)
	}
	if listener, ok := s.listeners["vault"]; ok {
		handler, err := vault.New(vault.Options{Config: s.config.Vault, Gate: s.gate, Service: s.config.Service,
			Logger: s.config.Logger, Clock: s.config.Clock})
		if err != nil {
			return err
		}
		s.addWeb(listener, handler)
	}
	return nil
}

// addWeb serves callers, who are authenticated, over HTTP.
func (s *Server) addWeb(listener net.Listener, handler http.Handler) {
	server := s.httpServer(aged(handler, s.config.ConnectionAge))
	server.ConnContext = identity.NewContext
	if s.files != nil {
		server.TLSConfig = s.files.Config("h2", "http/1.1")
	}
	s.web = append(s.web, web{server, listener, s.files != nil, false})
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: handshakeTimeout, ReadTimeout: bodyTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug)}
}

// GRPCAddr returns the address that gRPC is served on, nil if it is not.
func (s *Server) GRPCAddr() net.Addr { return s.addr("grpc") }

// RESTAddr returns the address that REST is served on, nil if it is not.
func (s *Server) RESTAddr() net.Addr { return s.addr("rest") }

// VaultAddr returns the address that the Vault-compatible API is served on, nil if it is not.
func (s *Server) VaultAddr() net.Addr { return s.addr("vault") }

// MetricsAddr returns the address of the metrics, nil if they are not served.
func (s *Server) MetricsAddr() net.Addr { return s.addr("metrics") }

func (s *Server) addr(name string) net.Addr {
	if l, ok := s.listeners[name]; ok {
		return l.Addr()
	}
	return nil
}

// Serve serves until ctx ends, then drains and returns nil. It returns early
// with an error when a listener fails. It must be called once only.
func (s *Server) Serve(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	start := func(serve func() error) {
		running.Go(func() {
			if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				stop(fmt.Errorf("serve: %w", err))
			}
		})
	}
	if listener, ok := s.listeners["grpc"]; ok {
		start(func() error { return s.grpc.Serve(listener) })
	}
	for _, listener := range s.sockets {
		start(func() error { return s.grpc.Serve(listener) })
	}
	for _, plugin := range s.kube {
		start(plugin.Serve)
	}
	for _, w := range s.web {
		start(w.serve)
	}
	running.Go(func() { s.watch(ctx) })
	if s.files != nil {
		running.Go(func() { s.files.Watch(ctx, watchInterval) })
	}
	<-ctx.Done()
	err := s.drain()
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

func (w web) serve() error {
	if w.secure {
		return w.server.ServeTLS(w.listener, "", "")
	}
	return w.server.Serve(w.listener)
}

// watch keeps the health that gRPC reports up to date.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		s.reportHealth()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Close ends everything at once.
func (s *Server) Close() {
	s.gate.Drain()
	if s.grpc != nil {
		s.grpc.Stop()
	}
	for _, plugin := range s.kube {
		plugin.Stop()
	}
	for _, w := range s.web {
		_ = w.server.Close()
	}
	for _, l := range s.listeners {
		_ = l.Close()
	}
	for _, l := range s.sockets {
		_ = l.Close()
	}
}
