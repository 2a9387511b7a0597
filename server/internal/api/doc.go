// Package api is the table of methods: each row translates, calls the core, and
// translates back. gRPC registers the table, REST runs its rows in process.
//
// An API is immutable and safe for concurrent use. A pipeline has a bounded set
// of goroutines that end with its stream; no other method starts one.
package api
