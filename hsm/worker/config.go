package worker

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/keywright/keywright/hsm"
)

// Limits of what a Supervisor runs.
const (
	// MaxWorkers is the most workers of one token.
	MaxWorkers = 16

	maxSessions = 1 << 16
)

// Config says which token to use, and through how many workers.
type Config struct {
	// HSM names the token. MaxSessions is divided among the workers, one at least
	// for each. The PIN is read once for each worker that starts.
	HSM hsm.Config
	// Workers is the number of worker processes, up to MaxWorkers; 0 stands for 1.
	Workers int
	// Env names the variables of this process's environment that a worker gets. A
	// name that ends in * stands for all that begin so. DefaultEnv has what the
	// known modules need.
	Env []string
	// Command is the program and its arguments; nil stands for this program with
	// CommandName.
	Command []string
}

// DefaultEnv returns the variables that the known PKCS#11 modules read, and those
// that decide how libraries are found and times and messages are written.
func DefaultEnv() []string {
	return []string{
		"SOFTHSM2_CONF",         // SoftHSM2
		"TPM2_PKCS11_*", "TCTI", // tpm2-pkcs11
		"NSS_*",                   // NSS softokn
		"OPENCRYPTOKI_*", "OCK_*", // opencryptoki
		"P11_KIT_*",                  // p11-kit
		"ChrystokiConfigurationPath", // Thales Luna
		"NFAST_*", "CKNFAST_*",       // Entrust nShield
		"YUBIHSM_PKCS11_CONF", // YubiHSM2
		"CS_PKCS11_*",         // Utimaco
		"KMS_PKCS11_CONFIG",   // Google libkmsp11
		"GOOGLE_APPLICATION_CREDENTIALS",
		"CLOUDHSM_*",               // AWS CloudHSM
		"DBUS_SESSION_BUS_ADDRESS", // of the TPM's resource manager
		"HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
		"LD_LIBRARY_PATH", "PATH", "TMPDIR", "LANG", "LC_ALL", "TZ", "GODEBUG",
	}
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.HSM.PIN == nil:
		return c, fmt.Errorf("%w: PIN: want a source", hsm.ErrConfig)
	case c.Workers < 0 || c.Workers > MaxWorkers:
		return c, fmt.Errorf("%w: workers %d: want 0 to %d", hsm.ErrConfig, c.Workers, MaxWorkers)
	case c.HSM.MaxSessions < 0 || c.HSM.MaxSessions > maxSessions:
		return c, fmt.Errorf("%w: maximum of sessions %d: want 0 to %d", hsm.ErrConfig, c.HSM.MaxSessions, maxSessions)
	case c.HSM.Timeout < 0:
		return c, fmt.Errorf("%w: timeout %v: want 0 or more", hsm.ErrConfig, c.HSM.Timeout)
	}
	c.Workers = max(c.Workers, 1)
	if c.HSM.MaxSessions == 0 {
		c.HSM.MaxSessions = hsm.DefaultMaxSessions
	}
	if c.HSM.Timeout == 0 {
		c.HSM.Timeout = hsm.DefaultTimeout
	}
	if c.HSM.Logger == nil {
		c.HSM.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Command == nil {
		c.Command = []string{self, CommandName}
	}
	return c, nil
}

// settings is each worker's share.
func (c Config) settings() settings {
	return settings{module: c.HSM.Module, initArgs: c.HSM.InitArgs, label: c.HSM.TokenLabel, serial: c.HSM.TokenSerial,
		maxSessions: max(1, c.HSM.MaxSessions/c.Workers), timeout: c.HSM.Timeout}
}

// environment returns the entries of this process's environment that names allow,
// as they are now.
func environment(names []string) (entries []string) {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if slices.ContainsFunc(names, func(pattern string) bool { return Matches(pattern, name) }) {
			entries = append(entries, entry)
		}
	}
	return entries
}

// Matches tells whether an entry of Config.Env allows a variable.
func Matches(pattern, name string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == name || open && strings.HasPrefix(name, prefix)
}
