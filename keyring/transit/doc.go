// Package transit makes and opens what the transit engine of HashiCorp Vault and
// OpenBao makes: its ciphertexts, signatures and HMACs, all of the form
// vault:v<N>:<base64>, and its backups and exports of keys.
//
// It turns key material into operations, as package keyring does, and like it stores
// nothing, decides nothing about who may do what, and counts nothing.
//
// A Material belongs to one goroutine at a time; a Version is built once, holds its
// own copy of the key, and is safe for concurrent use without locks.
package transit
