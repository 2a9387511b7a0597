package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultToken is the name of Config.HSM, which wraps `system` and each namespace
// that is bound to no other token.
const DefaultToken = "default"

// device is a token of the configuration, with what is known of it.
type device struct {
	name   string
	hsm    HSM
	health atomic.Pointer[string] // what is wrong, "" if nothing
	away   atomic.Int64           // since when it does not answer, Unix nanoseconds; 0: it does
	watch  sync.Mutex             // held while it is probed
	failed int                    // probes in a row
}

func newDevices(c Config) map[string]*device {
	devices := map[string]*device{}
	for name, hsm := range c.Tokens {
		devices[name] = newTokenDevice(name, hsm, c.Observer)
	}
	devices[DefaultToken] = newTokenDevice(DefaultToken, c.HSM, c.Observer)
	return devices
}

func newTokenDevice(name string, hsm HSM, o Observer) *device {
	d := &device{name: name, hsm: observed{hsm, o}}
	well := ""
	d.health.Store(&well)
	return d
}

// tokenNames are those of the configuration, the default one first.
func (s *Service) tokenNames() []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(s.devices)), func(name string) bool { return name == DefaultToken })
	return append([]string{DefaultToken}, names...)
}

// checkTokens refuses two names for one token.
func (s *Service) checkTokens(context.Context) error {
	if _, taken := s.config.Tokens[DefaultToken]; taken {
		return fmt.Errorf("a further token is called %q, which is the name of the one that holds the first root key; call it otherwise", DefaultToken)
	}
	seen := map[string]string{}
	for _, name := range s.tokenNames() {
		if err := checkName("token", name); err != nil {
			return err
		}
		status := s.devices[name].hsm.Status()
		if status.TokenSerial == "" {
			continue // away: when it is back it has to have its root key
		}
		token := strings.Join([]string{status.Manufacturer, status.Model, status.TokenSerial}, "\x00")
		if other, twice := seen[token]; twice {
			return fmt.Errorf("tokens %s and %s of the configuration are one and the same: %q, serial %s; name it once", other, name, status.TokenLabel, status.TokenSerial)
		}
		seen[token] = name
	}
	return nil
}

// tokenName is what a stored or given name stands for.
func tokenName(name string) string { return cmp.Or(name, DefaultToken) }

// storedToken is how a record names a token: the default one not at all.
func storedToken(name string) string {
	if name == DefaultToken {
		return ""
	}
	return name
}

// checkToken refuses a name that the configuration does not have.
func (s *Service) checkToken(name string) error {
	if _, ok := s.devices[tokenName(name)]; ok {
		return nil
	}
	return invalid("token", "%q is not in this server's configuration; it has %s", clip(name), strings.Join(s.tokenNames(), ", "))
}

// tokenHSM returns the device of that name, of a record or given.
func (s *Service) tokenHSM(name string) (HSM, error) {
	if d, ok := s.devices[tokenName(name)]; ok {
		return d.hsm, nil
	}
	return nil, errTokenNotConfigured(name)
}

func errTokenNotConfigured(name string) *Error {
	return &Error{Code: Unavailable, Reason: "TOKEN_NOT_CONFIGURED",
		Message: fmt.Sprintf("the HSM token %q is not in this server's configuration; add it", tokenName(name))}
}

// tokenOf names the token of a namespace, as far as that is known in memory: for
// checks before the namespace is looked for.
func (s *Service) tokenOf(namespace string) string {
	if ns, ok := s.namespaces.Load(namespace); ok {
		return ns.Token
	}
	return ""
}

// wellToken tells whether the device of that name answers.
func (s *Service) wellToken(name string) bool {
	d, ok := s.devices[tokenName(name)]
	return ok && *d.health.Load() == ""
}

// awayError is an error of a device that is not the only one.
type awayError struct {
	token string
	err   error
}

// Error says which token.
func (e *awayError) Error() string { return "token " + e.token + ": " + e.err.Error() }

// Unwrap returns the device's error.
func (e *awayError) Unwrap() error { return e.err }

// awayMessage is what a caller is told of a device that fails.
func awayMessage(err error) string {
	var at *awayError
	what := "the HSM"
	if errors.As(err, &at) && at.token != DefaultToken {
		what = fmt.Sprintf("the HSM token %q", at.token)
	}
	if errors.Is(err, ErrWrongToken) {
		return what + " is not the one that the store remembers, so it is not used; bring back the right one"
	}
	return what + " is not available; try again later"
}

// TokenStatus describes a token of the configuration.
type TokenStatus struct {
	Name        string
	HSM         HSMStatus
	RootKeyID   string // of the root key in force there; "" if it has none
	RootVersion uint32
	Away        time.Time // since when it does not answer; zero: it does
	Sealed      time.Time // since when its keys are dropped from memory; zero: they are not
}

func (s *Service) tokenStatus() (all []TokenStatus) {
	roots, sealed := s.roots.Load(), s.seals.Load()
	for _, name := range s.tokenNames() {
		d := s.devices[name]
		status := TokenStatus{Name: name, HSM: d.status(), Sealed: sealed.since(name)}
		if away := d.away.Load(); away != 0 {
			status.Away = time.Unix(0, away)
		}
		if root := roots.active[name]; root != nil {
			status.RootKeyID, status.RootVersion = root.ID.String(), root.Version
		}
		all = append(all, status)
	}
	return all
}

// status is the device's own, with what its probes have found.
func (d *device) status() HSMStatus {
	status := d.hsm.Status()
	if problem := *d.health.Load(); problem != "" {
		status.Healthy, status.Problem = false, problem
	}
	return status
}

// namespaceRequest is what an idempotency key of CreateNamespace stands for.
func namespaceRequest(q CreateNamespaceRequest) any {
	return struct {
		N, L, Q any
		T       string `json:",omitempty"`
		P       bool   `json:",omitempty"`
	}{q.Namespace, q.Labels, q.Quotas, storedToken(q.Token), q.PlaintextExport}
}
