package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/hsm/worker"
)

// LocalBundle is the name of the trust domain of the CA that init makes. It is
// believed as long as the server's certificate comes from it too.
const LocalBundle = "local"

var bundleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Problems says what is wrong with the values, without looking at any file: one
// line each, naming the field, the limit and what to do.
func (c *Config) Problems() []string {
	p := &problems{}
	p.require(c.DataDir != "", "data_dir", "is empty: name the directory of the server's data")
	c.HSM.check(p)
	c.HSM.checkTokens(p)
	c.Listen.check(p, c.TLS.Plaintext, c.Vault.address())
	c.Vault.check(p)
	c.TLS.check(p)
	c.Limits.check(p)
	c.Audit.check(p)
	p.require(c.Store.KeepRevisions >= 1, "store.keep_revisions", "is 0: keep at least 1")
	p.between("store.min_free_bytes", c.Store.MinFreeBytes, 256<<20, 1<<40)
	p.between("cache_bytes", c.CacheBytes, 1<<20, 1<<40)
	c.Log.check(p)
	return *p
}

type problems []string

// require notes a problem with a field unless ok.
func (p *problems) require(ok bool, field, format string, args ...any) {
	if !ok {
		*p = append(*p, field+" "+fmt.Sprintf(format, args...))
	}
}

func (p *problems) between(field string, n, low, high Bytes) {
	p.require(n >= low && n <= high, field, "is %d: want %d to %d bytes", n, low, high)
}

func (p *problems) within(field string, d Duration, low, high time.Duration) {
	have := time.Duration(d)
	p.require(have >= low && have <= high, field, "is %v: want %v to %v", have, low, high)
}

func (h *HSM) check(p *problems) {
	p.require(h.Module != "", "hsm.module", "is missing: name the PKCS#11 library of your token, such as /usr/lib/softhsm/libsofthsm2.so")
	p.require(len(h.InitArgs) <= 4096 && !strings.ContainsRune(h.InitArgs, 0), "hsm.init_args", "has %d bytes: want at most 4096, and none of them NUL", len(h.InitArgs))
	p.require(h.TokenLabel != "" || h.TokenSerial != "", "hsm.token_label", "is missing: name the token by hsm.token_label or hsm.token_serial")
	sources := 0
	for _, set := range []bool{h.PIN.File != "", h.PIN.Env != "", h.PIN.FD != NoFD} {
		if set {
			sources++
		}
	}
	p.require(sources == 1, "hsm.pin", "has %d sources: set exactly one of file, env and fd", sources)
	p.require(h.PIN.FD == NoFD || h.PIN.FD == 0 || h.PIN.FD > 2, "hsm.pin.fd", "is %d: want 0 or a descriptor above 2", h.PIN.FD)
	p.require(h.MaxSessions >= 0 && h.MaxSessions <= 1024, "hsm.max_sessions", "is %d: want 0 to 1024", h.MaxSessions)
	p.within("hsm.timeout", h.Timeout, 100*time.Millisecond, 5*time.Minute)
	p.require(h.Workers >= 1 && h.Workers <= worker.MaxWorkers, "hsm.workers", "is %d: want 1 to %d", h.Workers, worker.MaxWorkers)
	p.require(h.Workers == 1 || !h.InProcess, "hsm.in_process", "goes with hsm.workers 1: there are no workers then")
	for i, name := range h.Env {
		field := fmt.Sprintf("hsm.env[%d]", i)
		p.require(variable.MatchString(name), field, "is %q: want the name of an environment variable, or the beginning of names and a *", name)
	}
	h.checkSecretEnv(p, "hsm")
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*\*?$`)

func (l *Listen) check(p *problems, plaintext bool, vault string) {
	seen := map[string]string{}
	for _, at := range []struct{ field, address string }{
		{"listen.grpc", l.GRPC}, {"listen.rest", l.REST}, {"listen.metrics", l.Metrics}, {"vault.address", vault},
	} {
		if at.address == "" && at.field == "vault.address" {
			continue
		}
		host, port, err := net.SplitHostPort(at.address)
		number, bad := strconv.ParseUint(port, 10, 16)
		if err != nil || bad != nil {
			p.require(false, at.field, "is %q: want host:port, such as 127.0.0.1:7700", at.address)
			continue
		}
		// The metrics listener never has TLS: it answers neither keys nor data.
		p.require(!plaintext || isLoopback(host) || at.address == l.Metrics, at.field, "is %q: with tls.plaintext only loopback addresses are allowed", at.address)
		p.require(number == 0 || seen[at.address] == "", at.field, "is %q, as is %s: give each a port of its own", at.address, seen[at.address])
		seen[at.address] = at.field
	}
	l.checkSockets(p)
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func (t *TLS) check(p *problems) {
	p.require((t.CertFile == "") == (t.KeyFile == ""), "tls.cert_file", "and tls.key_file go together: set both, or neither to use what init makes")
	names := map[string]bool{}
	for i, bundle := range t.ClientCAs {
		field := fmt.Sprintf("tls.client_cas[%d]", i)
		p.require(bundleName.MatchString(bundle.Name), field+".name", "is %q: want 1 to 63 letters, digits, '.', '_' and '-'", bundle.Name)
		p.require(bundle.Name != LocalBundle || t.CertFile != "", field+".name", "is %q, the name of the CA that init makes, which is believed already: choose another", bundle.Name)
		p.require(!names[bundle.Name], field+".name", "%q stands there twice: each bundle is a trust domain of its own", bundle.Name)
		p.require(bundle.File != "", field+".file", "is missing: name a PEM file of CA certificates")
		names[bundle.Name] = true
	}
}

func (l *Limits) check(p *problems) {
	p.between("limits.max_message_bytes", l.MaxMessageBytes, 64<<10, 1<<30)
	p.require(l.MaxInFlight >= 1 && l.MaxInFlight <= 1_000_000, "limits.max_in_flight", "is %d: want 1 to 1000000", l.MaxInFlight)
	p.within("limits.call_timeout", l.CallTimeout, 100*time.Millisecond, time.Hour)
	p.within("limits.drain_timeout", l.DrainTimeout, 100*time.Millisecond, time.Hour)
	p.require(l.ConnectionAge == 0 || time.Duration(l.ConnectionAge) >= time.Minute, "limits.connection_age", "is %v: want 1m0s or more, or 0s for ever", time.Duration(l.ConnectionAge))
	p.require(l.FailedAuthentications >= 0 && l.FailedAuthentications <= 1_000_000, "limits.failed_authentications", "is %d: want 1 to 1000000 a minute, or 0 for no limit", l.FailedAuthentications)
	p.require(l.CallerRequestsPerSecond <= 1_000_000_000, "limits.caller_requests_per_second", "is %d: want at most 1000000000, or 0 for no limit", l.CallerRequestsPerSecond)
}

func (a *Audit) check(p *problems) {
	p.require(a.Durability == "interval" || a.Durability == "fsync", "audit.durability", "is %q: want interval or fsync", a.Durability)
	p.within("audit.interval", a.Interval, time.Millisecond, 10*time.Second)
	p.between("audit.segment_bytes", a.SegmentBytes, 1<<20, 1<<40)
	p.between("audit.reserve_bytes", a.ReserveBytes, 64<<10, 1<<30)
	p.require(a.MaxUnsigned == 0 || a.MaxUnsigned >= 1000, "audit.max_unsigned", "is %d: want 1000 or more, or 0 for no bound", a.MaxUnsigned)
	p.require(a.Retention == 0 || time.Duration(a.Retention) >= 24*time.Hour, "audit.retention", "is %v: want 24h or more, or 0 to keep entries for ever", time.Duration(a.Retention))
	p.require(a.Contexts == "plain" || a.Contexts == "hashed", "audit.contexts", "is %q: want plain or hashed", a.Contexts)
	for i, r := range a.Receivers {
		r.check(p, fmt.Sprintf("audit.receivers[%d]", i))
	}
}

func (r *Receiver) check(p *problems, field string) {
	kinds := 0
	for _, set := range []bool{r.File != "", len(r.Command) > 0, r.Witness != ""} {
		if set {
			kinds++
		}
	}
	p.require(kinds == 1, field, "is %d kinds of receiver: set exactly one of file, command and witness", kinds)
	p.require((r.Witness == "") == (r.Key == ""), field+".key", "goes with witness: it is the witness's verifier key")
	if r.Interval != 0 {
		p.within(field+".interval", r.Interval, time.Second, 24*time.Hour)
	}
	if len(r.Command) > 0 {
		p.require(filepath.IsAbs(r.Command[0]), field+".command", "begins with %q: want the absolute path of a program", r.Command[0])
	}
}

func (l *Log) check(p *problems) {
	_, ok := l.SlogLevel()
	p.require(ok, "log.level", "is %q: want debug, info, warn or error", l.Level)
	p.require(l.Format == "json" || l.Format == "text", "log.format", "is %q: want json or text", l.Format)
}

// SlogLevel returns the level; ok is false when there is none of that name.
func (l *Log) SlogLevel() (level slog.Level, ok bool) {
	level, ok = map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}[l.Level]
	return level, ok
}
