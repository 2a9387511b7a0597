// Package vault serves the HTTP API of HashiCorp Vault and OpenBao as far as clients of
// their transit engine call it, on the core's keys of VAULT framing.
//
// A mount is a namespace of the same name, or what the configuration maps it to. Every
// request passes the server's one gate (server/internal/gate); below a mount it is
// internal/engine that serves, and internal/wire reads and writes what is on the wire.
// Callers are who they are everywhere: by X-Vault-Token (or a bearer token), which is one
// of this server's own tokens, else by their client certificate.
//
// A Handler is safe for concurrent use and lives as long as the server.
package vault
