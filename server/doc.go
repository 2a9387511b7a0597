// Package server offers the core (package kms) over gRPC and REST. It
// authenticates, bounds, translates and maps errors; it decides nothing and
// touches no store, key or HSM.
//
// Every request, whichever way it came, passes the same gate (internal/gate) and
// runs a row of the same table (internal/api), which internal/translate turns
// into calls of the core. REST (internal/rest) runs the rows in process, without
// a connection to itself. Who calls is found out by internal/identity. Kubernetes
// API servers have sockets and an API of their own (kube), behind the same gate.
//
// Lifetimes: New opens the listeners, Serve runs until its context ends and then
// drains: health turns NOT_SERVING, streams are ended, calls in flight finish
// within a bound. The kms.Service may be closed once Serve has returned.
//
// Threading: a Server serves any number of calls at once. A pipeline has a
// bounded set of goroutines of its own; no other call starts one.
package server
