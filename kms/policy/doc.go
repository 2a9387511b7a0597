// Package policy decides who may do what. It holds the vocabulary of
// authorisation (Caller, Action, Resource), checks policies written in Cedar
// when they are stored, and decides requests against a compiled Set of them.
//
// Rules of decision: nothing is allowed unless a policy permits it; a policy
// that forbids wins over any that permit; a policy that forbids but cannot be
// evaluated counts as forbidding, one that permits but cannot be evaluated as
// absent. The language is Cedar as evaluated by cedar-go; the schema every
// policy is checked against is the one Schema returns.
//
// Lifetimes: a Set is compiled once from all policies in force and never
// changes; whoever stores a policy builds a new Set with a new revision and
// swaps it in. Remembered decisions belong to their Set and die with it.
//
// Threading: everything exported may be used by any number of goroutines at
// once. Deciding takes no lock and starts no goroutine.
package policy
