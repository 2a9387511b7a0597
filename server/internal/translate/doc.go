// Package translate turns the messages of the API (proto/keywright/v1) into the
// requests of the core and the core's answers into messages. It decides
// nothing: what a value means, and whether it is allowed, is the core's.
//
// All functions are pure and safe for concurrent use. Slices and maps are
// shared between the two forms, not copied.
package translate
