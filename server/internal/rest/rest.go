package rest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/api"
	"github.com/keywright/keywright/server/internal/flatjson"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/identity"
)

const jsonType = "application/json"

// Options is what REST stands on; all are required.
type Options struct {
	Gate     *gate.Gate
	API      *api.API
	Logger   *slog.Logger
	MaxBytes int // of a request's body
	// Probes serves /healthz and /readyz.
	Probes http.Handler
}

// rest serves the hot methods by hand, the others, and whatever is unusual
// about a hot one, by grpc-gateway.
type rest struct {
	gate     *gate.Gate
	api      *api.API
	logger   *slog.Logger
	maxBytes int
	hot      map[string]hotMethod // by the verb after the colon
	gateway  http.Handler
	origin   *http.CrossOriginProtection
}

// New returns the REST API. Requests must come over connections of an
// identity.Listener whose context identity.NewContext made.
func New(o Options) (http.Handler, error) {
	gateway, err := newGateway(o.API)
	if err != nil {
		return nil, err
	}
	r := &rest{gate: o.Gate, api: o.API, logger: o.Logger, maxBytes: o.MaxBytes, gateway: gateway, origin: http.NewCrossOriginProtection()}
	r.hot = r.hotMethods()
	return probesOr(o.Probes, r), nil
}

// probesOr keeps http.ServeMux, which redirects paths it finds unclean, away
// from the API: a name ".." must be refused as a name.
func probesOr(probes, api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/healthz" || req.URL.Path == "/readyz" {
			probes.ServeHTTP(w, req)
			return
		}
		api.ServeHTTP(w, req)
	})
}

// ServeHTTP takes a request as far as it is the same for all methods.
func (r *rest) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	a := gate.Arrival{Connection: identity.FromContext(req.Context()), RequestID: gate.RequestID(req.Header["X-Request-Id"]),
		Authorization: strings.Join(req.Header["Authorization"], ", ")}
	w.Header()["X-Request-Id"] = []string{a.RequestID}
	x := exchanges.Get().(*exchange)
	defer x.put()
	if err := r.serve(w, req, a, x); err != nil {
		writeError(w, gate.AsError(err), a.RequestID)
	}
}

// serve returns the error that is still to be written.
func (r *rest) serve(w http.ResponseWriter, req *http.Request, a gate.Arrival, x *exchange) (err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = gate.InternalError(r.gate.Panicked(req.Method, thrown))
		}
	}()
	if a.Caller, err = r.gate.Authenticate(a); err != nil {
		return err
	}
	if err := r.check(req); err != nil {
		return err
	}
	if x.body, err = gate.ReadBody(req, x.body, r.maxBytes); err != nil {
		return err
	}
	if handled, err := r.serveHot(w, req, a, x); handled {
		return err
	}
	return r.serveGateway(w, req, a, x)
}

// check refuses what would be ignored, or was sent by a web page: a browser may
// hold a client certificate, and would present it for any page that asks.
func (r *rest) check(req *http.Request) error {
	if r.origin.Check(req) != nil {
		return &kms.Error{Code: kms.PermissionDenied, Reason: "CROSS_ORIGIN", Message: "requests from web pages of another origin are refused"}
	}
	if hasBody(req.Method) && req.URL.RawQuery != "" {
		return &kms.Error{Code: kms.InvalidArgument, Reason: "UNEXPECTED_QUERY",
			Message: req.Method + " takes no query parameters; put fields into the JSON body"}
	}
	return nil
}

func hasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

func (r *rest) serveHot(w http.ResponseWriter, req *http.Request, a gate.Arrival, x *exchange) (handled bool, err error) {
	if req.Method != http.MethodPost || req.Header["Grpc-Timeout"] != nil {
		return false, nil
	}
	namespace, key, verb, ok := splitPath(req.URL.Path)
	if !ok || req.URL.RawPath != "" {
		return false, nil
	}
	hot, ok := r.hot[verb]
	if !ok {
		return false, nil
	}
	if handled, err = hot.serve(req.Context(), a, namespace, key, x); !handled || err != nil {
		return handled, err
	}
	w.Header()["Content-Type"] = []string{jsonType}
	_, err = w.Write(x.out)
	r.lost(err)
	return true, nil
}

// splitPath takes "/v1/namespaces/{namespace}/keys/{key}:{verb}" apart.
func splitPath(path string) (namespace, key, verb string, ok bool) {
	rest, found := strings.CutPrefix(path, "/v1/namespaces/")
	if !found {
		return "", "", "", false
	}
	namespace, rest, _ = strings.Cut(rest, "/")
	rest, found = strings.CutPrefix(rest, "keys/")
	colon := strings.LastIndexByte(rest, ':')
	if !found || namespace == "" || colon <= 0 || strings.Contains(rest, "/") {
		return "", "", "", false
	}
	return namespace, rest[:colon], rest[colon+1:], true
}

func (r *rest) serveGateway(w http.ResponseWriter, req *http.Request, a gate.Arrival, x *exchange) error {
	if !hasBody(req.Method) && len(x.body) > 0 {
		return &kms.Error{Code: kms.InvalidArgument, Reason: "UNEXPECTED_BODY",
			Message: req.Method + " takes no body; put fields into query parameters"}
	}
	ctx := context.WithValue(req.Context(), forwardedKey{}, &forwarded{arrival: a, query: req.URL.Query()})
	req = req.WithContext(ctx)
	req.Body = &body{Reader: bytes.NewReader(x.body)}
	r.gateway.ServeHTTP(w, req)
	return nil
}

// lost notes that an answer did not reach its caller, who will ask again.
func (r *rest) lost(err error) {
	if err != nil {
		r.logger.Debug("answer not sent", "error", err)
	}
}

// keepBytes bounds the memory that an exchange keeps for the next one.
const keepBytes = 64 << 10

// exchange holds the memory of one request and its response.
type exchange struct {
	body    []byte
	out     []byte
	scanner flatjson.Scanner
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// put wipes the exchange, which may hold plaintext, for the next request.
func (x *exchange) put() {
	clear(x.body)
	clear(x.out)
	x.scanner.Wipe()
	if cap(x.body) > keepBytes || cap(x.out) > keepBytes {
		return
	}
	x.body, x.out = x.body[:0], x.out[:0]
	exchanges.Put(x)
}

// writeError writes the one form of errors.
func writeError(w http.ResponseWriter, e *kms.Error, requestID string) {
	h := w.Header()
	h["Content-Type"] = []string{jsonType}
	if e.Code == kms.Unauthenticated {
		h["Www-Authenticate"] = []string{`Bearer realm="keywright"`}
	}
	w.WriteHeader(gate.HTTPStatus(e))
	_, _ = fmt.Fprintf(w, "%s\n", errorJSON(e, requestID))
}
