// Package rest serves the table of methods as JSON over HTTP, by the rules of
// proto/rest.yaml. It is strict: what it does not know it refuses, naming the
// field. The hot methods have a hand-written reader and writer in front of
// grpc-gateway, with the same meaning.
//
// Handlers are safe for concurrent use and start no goroutine; memory that held
// a request is wiped before it is used again.
package rest
