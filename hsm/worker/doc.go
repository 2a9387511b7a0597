// Package worker keeps the PKCS#11 module out of the server: the module is loaded in
// worker processes alone, which a Supervisor starts, watches and replaces. The
// Supervisor is an hsm.Service, and serves hsm.Keys; for what calls it, it is as
// good as an hsm.Device.
//
// # The two sides
//
// A Supervisor runs its own program again with the argument CommandName. The child
// gets one end of a private socket pair as descriptor 3, an empty standard input and
// output, a pipe for what it says on standard error, the variables of the
// environment that the configuration names, and nothing else: no other descriptor,
// no argument. The configuration and the PIN come over the socket, in frames that
// package wire describes. Run is the whole of the child.
//
// The worker uses the PIN for one login and overwrites it. When the login is lost,
// it says so and is replaced: the PIN is read anew from its source for each worker
// and tried once in it, workers are started one at a time, and after a refusal none
// is started any more.
//
// # Lifetimes
//
// A worker ends when the Supervisor closes its end of the socket, or the server
// dies; it is killed when it leaves a call unanswered beyond the configured timeout
// and a grace, when it answers nonsense, and when its module hangs. Then a new one
// takes its place, at once if the old one had lived for a while, and otherwise after
// a pause that doubles from 100 ms to 5 s. A new worker has to hold each root
// key that the Supervisor has seen, with the same check value, before it gets a
// call; signers and keys are found again before their next use.
//
// A call that a dead worker had is asked again, once, of another. What makes an
// object is not: it ends with hsm.ErrUnknownOutcome. While no worker lives, calls
// wait for the next one; they fail at once with hsm.ErrUnavailable while a pause
// after a failed start lasts.
//
// # Trust
//
// The worker belongs to the trusted base, since it sees what it unwraps. Even so its
// answers are not believed blindly: sizes are checked, a wrap blob must name its root
// key and version, and a signature must verify with the public key first seen.
//
// A Supervisor may be used from any number of goroutines.
package worker
