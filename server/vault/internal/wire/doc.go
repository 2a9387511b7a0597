// Package wire reads requests and writes answers as the HTTP API of HashiCorp Vault and
// OpenBao has them: lenient in what is read (numbers and booleans given as text, unknown
// fields, a body of null), exact in what is written (the envelope, {"errors": […]}).
//
// A Request and an Answer belong to one exchange and one goroutine; what they hold may
// point into the exchange's body.
package wire
