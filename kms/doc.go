// Package kms is the domain core: namespaces, named keys with versions and their
// life, and every operation that any surface may perform with them.
//
// There is one way in. Each operation passes authorize → act → audit: perform
// for uses and reads, mutate for changes, which additionally write a durable
// intent first. No decision, no operation; no audit record, no answer.
//
// Transports build a Call and use the Service; they never touch a store, a key
// or the HSM. kms reaches the device through the HSM interface and holds only
// what the device has unwrapped.
//
// A Service lives from Open to Close and is safe for concurrent use. The hot
// path reads copy-on-write snapshots and takes no lock; changes of one key are
// serialised by a lock that no use of a key waits for. Background jobs (rotation,
// destruction, use counting, health) run in one goroutine that Close ends; what
// they do is recorded in the store, so a crash loses none of it.
package kms
