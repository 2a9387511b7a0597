// Package server offers the core (package kms) over gRPC and REST. It
// authenticates, bounds, translates and maps errors; it decides nothing and
// touches no store, key or HSM.
//
// Every request, whichever way it came, passes the same gate: request id,
// authentication, admission, deadline, recovery from panics, error table. A
// unary method is one row of a table (methods.go) that gRPC and REST share: REST
// runs the rows in process, without a connection to itself. The hot REST
// methods have a hand-written reader and writer in front of grpc-gateway, with
// the same meaning.
//
// Lifetimes: New opens the listeners, Serve runs until its context ends and then
// drains: health turns NOT_SERVING, streams are ended, calls in flight finish
// within a bound. The kms.Service may be closed once Serve has returned.
//
// Threading: a Server serves any number of calls at once. A pipeline has a
// bounded set of goroutines of its own; no other call starts one.
package server
