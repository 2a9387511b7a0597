// Package engine serves the transit secrets engine of HashiCorp Vault and OpenBao on the
// core's keys of VAULT framing (package kms): it reads what their clients send, makes
// operations and requests of the core of it, and tells results as theirs does. It decides
// nothing: policy, limits and the audit log are the core's.
//
// An Engine is immutable and safe for concurrent use. A Query belongs to one request.
package engine

import (
	"context"
	"net/url"
	"strings"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

// Options are what an Engine does as the original does, where that is not the default.
type Options struct {
	Service *kms.Service
	// LenientBatches answers 200 to batches of rewrap, sign, verify and hmac with failed items.
	LenientBatches bool
	// CreateOnEncrypt lets an encryption create the key that it names, if there is none.
	CreateOnEncrypt bool
}

// Engine serves the paths below a mount.
type Engine struct {
	Options
	byFirst map[string][]*Route // by the path's first segment
	routes  []*Route
}

// The methods, as the original knows them: POST and PUT are one, and a GET with list=true
// is a List.
const (
	Get    = "GET"
	List   = "LIST"
	Put    = "PUT"
	Delete = "DELETE"
)

// Handler serves a request.
type Handler func(e *Engine, ctx context.Context, q *Query) (*wire.Answer, error)

// Route is a row of the table of paths.
type Route struct {
	Name string // for metrics and logs
	// Plain lets the request be scanned, which keeps no Fields.
	Plain   bool
	method  string
	pattern []string // a segment, or ":" and a parameter's name
	serve   Handler
}

// Query is a request of the engine.
type Query struct {
	Call      kms.Call
	Namespace string
	Request   *wire.Request
	Values    url.Values // of the URL's query
	Path      Parameters
	Memory    *Memory
}

// Parameters are those of a path, by the names that its row gives them.
type Parameters struct {
	route  *Route
	values [maxSegments]string
}

// maxSegments is how many segments a path below a mount has at most.
const maxSegments = 4

// Get returns the parameter of that name, "" if the path has none.
func (p *Parameters) Get(name string) string {
	for i, segment := range p.route.pattern {
		if segment[0] == ':' && segment[1:] == name {
			return p.values[i]
		}
	}
	return ""
}

// Memory is what a Query works with and leaves to the next one.
type Memory struct {
	Raw   []byte // the answer's data
	arena []byte // decoded texts
}

// Wipe overwrites what was decoded and answered; all of it may be secret.
func (m *Memory) Wipe() {
	clear(m.Raw)
	clear(m.arena)
	m.Raw, m.arena = m.Raw[:0], m.arena[:0]
}

// Size is how many bytes the memory holds.
func (m *Memory) Size() int { return cap(m.Raw) + cap(m.arena) }

// New returns an Engine.
func New(o Options) *Engine {
	e := &Engine{Options: o, byFirst: map[string][]*Route{}}
	for _, table := range [][]Route{useRoutes(), keyRoutes(), transferRoutes()} {
		for _, r := range table {
			e.routes = append(e.routes, &r)
			e.byFirst[r.pattern[0]] = append(e.byFirst[r.pattern[0]], &r)
		}
	}
	return e
}

// Routes are all rows of the table.
func (e *Engine) Routes() []*Route { return e.routes }

// Find returns the row for a method and the path below a mount, with the path's
// parameters. It is nil if there is none; known tells that the path is one of another method.
func (e *Engine) Find(method, path string) (r *Route, parameters Parameters, known bool) {
	segments, n := split(path)
	if n == 0 {
		return nil, parameters, false
	}
	for _, r := range e.byFirst[segments[0]] {
		if r.match(segments[:n]) {
			if r.method == method {
				return r, Parameters{r, segments}, true
			}
			known = true
		}
	}
	return nil, parameters, known
}

// split takes a path apart; n is 0 where it has too many segments, or an empty one.
func split(path string) (segments [maxSegments]string, n int) {
	path = strings.TrimSuffix(path, "/")
	for more := true; more; n++ {
		if n == maxSegments {
			return segments, 0
		}
		if segments[n], path, more = strings.Cut(path, "/"); segments[n] == "" {
			return segments, 0
		}
	}
	return segments, n
}

func (r *Route) match(segments []string) bool {
	if len(segments) != len(r.pattern) {
		return false
	}
	for i, want := range r.pattern {
		if want[0] != ':' && want != segments[i] {
			return false
		}
	}
	return true
}

// Serve serves a query that Find led to.
func (e *Engine) Serve(ctx context.Context, r *Route, q *Query) (*wire.Answer, error) {
	return r.serve(e, ctx, q)
}

func route(name, method, pattern string, serve Handler) Route {
	return Route{name, false, method, strings.Split(pattern, "/"), serve}
}

// plain is a route whose requests are mostly of the plain form.
func plain(name, pattern string, serve Handler) Route {
	r := route(name, Put, pattern, serve)
	r.Plain = true
	return r
}

func (q *Query) key() string { return q.Path.Get("name") }

// fields are those of the body, or of the URL's query where the request has none.
func (q *Query) fields() *wire.Reader {
	fields := q.Request.Fields
	if fields == nil {
		fields = wire.Fields{}
	}
	if len(fields) == 0 && len(q.Values) > 0 {
		fields = wire.Fields{}
		for name, values := range q.Values {
			fields[name] = values[0]
		}
	}
	return &wire.Reader{Fields: fields}
}

// ref names the request's key.
func (q *Query) ref() kms.KeyRef { return kms.KeyRef{Namespace: q.Namespace, Key: q.key()} }
