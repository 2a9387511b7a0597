// Package hsm uses a PKCS#11 token: it opens the module, finds the token, logs
// in, wraps and unwraps secrets under root keys that never leave the token, makes
// random bytes, signs with a key pair that lives there, and keeps HSM-resident keys.
// It is the only place that reaches C, in internal/cryptoki: through
// github.com/miekg/pkcs11, and with calls of its own where a key is used.
//
// This package decides what is asked for, what a failure means and how a sick token
// is brought back. Below it, internal/cryptoki makes the PKCS#11 calls,
// internal/algorithm is the table of algorithms, and internal/wait bounds calls that
// cannot be interrupted.
//
// # Lifetimes
//
// A module is initialised once per process (PKCS#11 v2.40 section 5.4) and shared
// by every Device opened on it; the last Close finalises it. Each initialisation
// is a generation. A Device holds a connection, which belongs to one generation:
// one keeper session that carries the login, a bounded pool of sessions, and the
// handles of the objects found so far. When the token goes away and comes back,
// the module is initialised anew and the connection is replaced; no session and
// no handle of an older generation is used again, because an old handle may name
// another key by then. What names an object for good is the token's serial
// number, the object's CKA_ID and its class.
//
// Root keys are only made by GenerateRoot. Every root that GenerateRoot or FindRoot
// has seen is checked again, by identifier and check value, after each
// reconnection; a token that lacks it, or holds another key in its place, is not
// used.
//
// HSM-resident keys are not checked like that, for there may be many: a secret key is
// tried when a connection first finds it, and must give what it gave before; the
// signatures of a pair are verified with its public key.
//
// # Threads and deadlines
//
// A Device may be used from any number of goroutines. Each call into the module
// runs in a goroutine of its own, so that a caller's context is honoured even when
// the module hangs. Go cannot interrupt a call inside C: it keeps its goroutine,
// its operating system thread and its place in the pool until the module returns,
// and while it lasts the module is neither finalised nor initialised anew.
//
// # Errors
//
// Every error of the token is an *Error with a Class, and each class has one
// reaction, written down in one table (reactions).
package hsm
