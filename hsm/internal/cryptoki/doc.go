// Package cryptoki is the one place of PKCS#11 calls (Cryptoki, as the standard
// calls its interface), through github.com/miekg/pkcs11: modules, tokens, logins,
// sessions, objects and mechanisms. It says what the token said; what a failure
// means and calls for is package hsm's.
//
// # Lifetimes
//
// A Module is loaded once per process and never unloaded. Each initialisation of it
// is a generation. A Connection is one login in one generation: a keeper session,
// the idle sessions and the handles found, none of which is used in a later
// generation. A Session is taken from a Connection, and put back or closed.
//
// # Threads
//
// A Module and a Connection are safe for concurrent use; a Session belongs to one
// goroutine. Calls block for as long as the module does, and run between Enter and
// Leave (or inside Within), which keep the module from being finalised meanwhile.
//
// # Errors
//
// What the module returned comes as pkcs11.Error; the rest are a *Fault and the
// sentinels.
package cryptoki
