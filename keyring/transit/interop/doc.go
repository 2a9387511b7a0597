// Package interop tests keyring/transit against the key code of HashiCorp Vault's transit
// engine, both ways: backups that either makes are read by the other, and with them all
// that the keys have made. It is a module of its own, so that Keywright needs nothing of
// Vault.
package interop
