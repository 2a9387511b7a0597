// Package gate is what every request passes, whichever way it came: request id,
// authentication, admission, deadline, recovery from panics, error table. A
// unary method is a Unary, which gRPC and REST both run; a stream passes Stream.
//
// Lifetimes: a Gate lives as long as the server; OpenStream as long as its
// stream.
//
// Threading: everything is safe for concurrent use. A call takes no lock and
// starts no goroutine here.
package gate
