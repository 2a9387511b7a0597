// Package identity finds out who is at the other end of a connection: by the
// client certificate of its TLS handshake, or by the bearer token of a request.
// It yields the policy.Caller that the core decides about, and nothing else.
//
// Lifetimes: a Connection lives as long as the connection it describes and is
// made by a Listener; Files and Authenticator live as long as the server.
//
// Threading: everything exported is safe for concurrent use. Authenticating a
// request whose token the connection has presented before takes no lock and
// allocates nothing.
package identity
