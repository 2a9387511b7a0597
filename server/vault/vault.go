package vault

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/identity"
	"github.com/keywright/keywright/server/vault/internal/engine"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

// DefaultMaxBodyBytes bounds a request's body: a batch of 10,000 items of 1 KiB fits.
const DefaultMaxBodyBytes = 32 << 20

// Mount maps a mount to a namespace of this server.
type Mount struct {
	Path           string // without slashes around it, such as "secret/transit"
	VaultNamespace string // as X-Vault-Namespace has it, without slashes around it; empty: none
	Namespace      string
}

// Config is what the surface does.
type Config struct {
	// Address is host:port to listen on; empty: the surface is off.
	Address string
	// Mounts are those that are no namespace of the same name.
	Mounts []Mount
	// LenientBatches answers 200 to a batch of rewrap, sign, verify or hmac with failed
	// items, as the original does; without it that is 400.
	LenientBatches bool
	// CreateOnEncrypt lets an encryption create the key that it names.
	CreateOnEncrypt bool
	// MaxBodyBytes bounds a request; 0 is DefaultMaxBodyBytes.
	MaxBodyBytes int
}

// Options are what a Handler stands on; all are required.
type Options struct {
	Config
	Gate    *gate.Gate
	Service *kms.Service
	Logger  *slog.Logger
	Clock   func() time.Time
}

// Handler serves the surface. Requests must come over connections of an
// identity.Listener whose context identity.NewContext made.
type Handler struct {
	gate    *gate.Gate
	service *kms.Service
	logger  *slog.Logger
	config  Config
	clock   func() time.Time
	mounts  mounts
	engine  *engine.Engine
	routes  map[*engine.Route]*gate.Unary[engine.Query, wire.Answer]
	system  map[string]*gate.Unary[systemQuery, wire.Answer]
	origin  *http.CrossOriginProtection
}

// New returns a Handler. The error is about the mounts.
func New(o Options) (*Handler, error) {
	if o.MaxBodyBytes <= 0 {
		o.MaxBodyBytes = DefaultMaxBodyBytes
	}
	m, err := newMounts(o.Mounts)
	if err != nil {
		return nil, err
	}
	h := &Handler{gate: o.Gate, service: o.Service, logger: o.Logger, config: o.Config, clock: o.Clock, mounts: m,
		engine: engine.New(engine.Options{Service: o.Service, LenientBatches: o.LenientBatches, CreateOnEncrypt: o.CreateOnEncrypt}),
		routes: map[*engine.Route]*gate.Unary[engine.Query, wire.Answer]{}, origin: http.NewCrossOriginProtection()}
	for _, r := range h.engine.Routes() {
		h.routes[r] = gate.Row(o.Gate, r.Name, func(ctx context.Context, call kms.Call, q *engine.Query) (*wire.Answer, error) {
			q.Call = call
			return h.engine.Serve(ctx, r, q)
		})
	}
	h.system = h.systemRows()
	return h, nil
}

// exchange holds the memory of one request and its answer.
type exchange struct {
	body    []byte
	out     []byte
	request wire.Request
	memory  engine.Memory
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// keepBytes bounds the memory that an exchange keeps for the next one, and keepItems its items.
const (
	keepBytes = 256 << 10
	keepItems = 1024
)

// put wipes the exchange, which may hold plaintext, for the next request.
func (x *exchange) put() {
	clear(x.body)
	clear(x.out)
	x.memory.Wipe()
	x.request.Wipe()
	if cap(x.body)+cap(x.out)+x.memory.Size() > keepBytes || cap(x.request.Items) > keepItems {
		return
	}
	x.body, x.out = x.body[:0], x.out[:0]
	exchanges.Put(x)
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	a := gate.Arrival{Connection: identity.FromContext(req.Context()), RequestID: gate.RequestID(req.Header["X-Request-Id"]), Authorization: authorization(req)}
	x := exchanges.Get().(*exchange)
	defer x.put()
	answer, err := h.serve(req, a, x)
	if err != nil {
		h.fail(w, req, gate.AsError(err), x)
		return
	}
	status := answer.StatusOf()
	if x.out, err = answer.AppendTo(x.out[:0], a.RequestID); err != nil {
		h.fail(w, req, gate.AsError(err), x)
		return
	}
	h.write(w, status, x.out)
}

var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

func (h *Handler) write(w http.ResponseWriter, status int, body []byte) {
	header := w.Header()
	header["Cache-Control"] = noStore
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	header["Content-Type"] = jsonType
	if status != http.StatusOK {
		w.WriteHeader(status)
	}
	if _, err := w.Write(body); err != nil {
		h.logger.Debug("answer not sent", "error", err)
	}
}

// fail writes an error. Where a namespace is missing, the original has no such mount.
func (h *Handler) fail(w http.ResponseWriter, req *http.Request, e *kms.Error, x *exchange) {
	status, text := wire.StatusAndText(e)
	switch {
	case e.Reason == "NAMESPACE_NOT_FOUND" || e.Reason == reasonNoRoute:
		text = "no handler for route \"" + strings.TrimPrefix(req.URL.Path, "/v1/") + "\". route entry not found."
	case status == http.StatusNotFound:
		text = "" // to clients it is nothing, and no error
	case status == http.StatusForbidden:
		text = "1 error occurred:\n\t* " + wire.Denied + "\n\n"
	}
	x.out = wire.AppendErrors(x.out[:0], text)
	h.write(w, status, x.out)
}

// authorization is the token of a request, as gRPC and REST send it; "" is none.
func authorization(req *http.Request) string {
	if token := req.Header["X-Vault-Token"]; len(token) == 1 && token[0] != "" && token[0] != CertificateToken {
		return "Bearer " + token[0]
	}
	given := strings.Join(req.Header["Authorization"], ", ")
	if bearer(given) == CertificateToken {
		return ""
	}
	return given
}

// bearer is the token in an authorization, "" if there is none. The scheme's name is
// case-insensitive (RFC 9110, 11.1).
func bearer(authorization string) string {
	scheme, text, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return text
}

const reasonNoRoute = "NO_ROUTE"

func errNoRoute() error { return &kms.Error{Code: kms.NotFound, Reason: reasonNoRoute} }

func errMethod() error {
	return &kms.Error{Code: kms.InvalidArgument, Reason: gate.ReasonMethod, Message: "unsupported operation"}
}

// serve finds out what a request is for.
func (h *Handler) serve(req *http.Request, a gate.Arrival, x *exchange) (answer *wire.Answer, err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = gate.InternalError(h.gate.Panicked(req.Method, thrown))
		}
	}()
	path, ok := strings.CutPrefix(req.URL.Path, "/v1/")
	if !ok {
		return nil, errNoRoute()
	}
	method, ok := methodOf(req)
	if !ok {
		return nil, errMethod()
	}
	if open := h.open(method, path, req); open != nil {
		return open, nil
	}
	if a.Caller, err = h.gate.Authenticate(a); err != nil {
		return nil, err
	}
	// A browser may hold a client certificate, and would present it for any page that asks.
	if h.origin.Check(req) != nil {
		return nil, &kms.Error{Code: kms.PermissionDenied, Reason: "CROSS_ORIGIN", Message: "requests from web pages of another origin are refused"}
	}
	if x.body, err = gate.ReadBody(req, x.body, h.config.MaxBodyBytes); err != nil {
		return nil, err
	}
	if row, below := h.systemRow(path); row != nil {
		return h.serveSystem(req, a, x, row, method, below)
	}
	return h.serveMount(req, a, x, method, path)
}

func (h *Handler) serveMount(req *http.Request, a gate.Arrival, x *exchange, method, path string) (*wire.Answer, error) {
	namespace, below, ok := h.mounts.find(strings.Trim(req.Header.Get("X-Vault-Namespace"), "/"), path)
	if !ok {
		return nil, errNoRoute()
	}
	route, parameters, known := h.engine.Find(method, below)
	switch {
	case route == nil && known:
		return nil, errMethod()
	case route == nil:
		return nil, &kms.Error{Code: kms.NotFound, Reason: reasonNoRoute}
	}
	if err := x.request.Read(x.body, route.Plain); err != nil {
		return nil, err
	}
	q := &engine.Query{Namespace: namespace, Request: &x.request, Path: parameters, Memory: &x.memory}
	if req.URL.RawQuery != "" {
		q.Values = req.URL.Query()
	}
	return h.routes[route].Serve(req.Context(), a, q, nil)
}

// methodOf is the method as the original takes it.
func methodOf(req *http.Request) (string, bool) {
	switch req.Method {
	case http.MethodPut, http.MethodPost, http.MethodPatch:
		return engine.Put, req.Method != http.MethodPatch
	case http.MethodGet:
		if list := req.URL.Query().Get("list"); list == "true" || list == "1" {
			return engine.List, true
		}
		return engine.Get, true
	case http.MethodHead:
		return engine.Get, strings.HasPrefix(req.URL.Path, "/v1/sys/")
	case engine.List, http.MethodDelete:
		return req.Method, true
	}
	return "", false
}
