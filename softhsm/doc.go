// Package softhsm finds an installed SoftHSM2 and provisions tokens with it,
// for development and tests. SoftHSM keeps keys in files: it is not a
// production device.
//
// A provisioned directory holds one token, its SoftHSM configuration and its
// PINs; it is the whole state, and may be moved or copied while no process
// uses it (Provision rewrites the configuration when the directory moved).
//
// The package is pure Go and never loads the module: initialising a token goes
// through the Initializer that the caller passes, so that no PIN ever stands on
// a command line. Functions may be called from any goroutine; Provision
// excludes other processes with a lock file.
package softhsm
