package hsm

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// Defaults of Config.
const (
	DefaultMaxSessions = 16
	DefaultTimeout     = 5 * time.Second
)

// MaxInitArgs is the longest Config.InitArgs, in bytes.
const MaxInitArgs = 4096

// Config says which token to use, and how.
type Config struct {
	// Module is the path of the PKCS#11 library.
	Module string
	// InitArgs goes to the module as it is, in the reserved field of C_Initialize's
	// arguments: NSS softokn wants its database there. "" for most modules; at most
	// MaxInitArgs bytes, none of them NUL.
	InitArgs string
	// TokenLabel and TokenSerial name the token; at least one. The serial wins.
	TokenLabel, TokenSerial string
	// PIN returns the user's PIN, at each login. It is never logged.
	PIN PINSource
	// MaxSessions bounds the calls inside the token at once, and so the sessions;
	// two more are used for the login and for recovery. 0 stands for
	// DefaultMaxSessions. A smaller limit of the token's prevails.
	MaxSessions int
	// Timeout bounds one call of the device, give or take a quarter, and the wait for a
	// session; 0 stands for DefaultTimeout. The making of RSA keys has a bound of its
	// own, of 3 minutes.
	Timeout time.Duration
	// rootWrap, unless 0, is the mechanism of new root keys, whatever the profile says.
	rootWrap Mechanism
	// Logger gets recoveries and their failures; nil stands for none.
	Logger *slog.Logger
}

// withDefaults checks the fields and fills in the optional ones.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Module == "":
		return c, fmt.Errorf("%w: module: want the path of a PKCS#11 library", ErrConfig)
	case len(c.InitArgs) > MaxInitArgs || strings.ContainsRune(c.InitArgs, 0):
		return c, fmt.Errorf("%w: initialise arguments of %d bytes: want at most %d, and none of them NUL", ErrConfig, len(c.InitArgs), MaxInitArgs)
	case c.TokenLabel == "" && c.TokenSerial == "":
		return c, fmt.Errorf("%w: token: want a label or a serial", ErrConfig)
	case c.PIN == nil:
		return c, fmt.Errorf("%w: PIN: want a source", ErrConfig)
	case c.MaxSessions < 0:
		return c, fmt.Errorf("%w: maximum of sessions %d: want 0 or more", ErrConfig, c.MaxSessions)
	case c.Timeout < 0:
		return c, fmt.Errorf("%w: timeout %v: want 0 or more", ErrConfig, c.Timeout)
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = DefaultMaxSessions
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// poolSize is the bound of the pool on a token: two sessions are kept back for the
// login and for recovery.
func (c Config) poolSize(token cryptoki.Token) int {
	if token.MaxSessions == 0 {
		return c.MaxSessions
	}
	return max(1, min(c.MaxSessions, token.MaxSessions-2))
}
