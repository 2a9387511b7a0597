package config

import (
	"cmp"
	"fmt"
	"time"

	"github.com/keywright/keywright/hsm/worker"
	"github.com/keywright/keywright/kms"
)

// Token is a further token, beside the one that HSM itself describes: namespaces
// can be bound to it. What is left out is as for that one.
type Token struct {
	Name        string   `yaml:"name"`         // required
	Module      string   `yaml:"module"`       // path of the PKCS#11 library
	InitArgs    string   `yaml:"init_args"`    // for its C_Initialize, if Module is given
	TokenLabel  string   `yaml:"token_label"`  // this or TokenSerial is required
	TokenSerial string   `yaml:"token_serial"` // wins over the label
	PIN         TokenPIN `yaml:"pin"`          // required
	MaxSessions int      `yaml:"max_sessions"`
	Timeout     Duration `yaml:"timeout"`
}

// TokenPIN is PIN for a further token.
type TokenPIN struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
	FD   *int   `yaml:"fd"` // nil: none; 0 is a descriptor
}

// Of returns how a further token is used.
func (h HSM) Of(t Token) HSM {
	own := h
	own.Tokens = nil
	if t.Module != "" {
		own.Module, own.InitArgs = t.Module, t.InitArgs
	}
	own.TokenLabel, own.TokenSerial = t.TokenLabel, t.TokenSerial
	own.PIN = PIN{File: t.PIN.File, Env: t.PIN.Env, FD: NoFD}
	if t.PIN.FD != nil {
		own.PIN.FD = *t.PIN.FD
	}
	own.MaxSessions, own.Timeout = cmp.Or(t.MaxSessions, h.MaxSessions), cmp.Or(t.Timeout, h.Timeout)
	return own
}

// identity is what two tokens must not share.
func (h HSM) identity() string {
	if h.TokenSerial != "" {
		return h.Module + "\x00serial\x00" + h.TokenSerial
	}
	return h.Module + "\x00label\x00" + h.TokenLabel
}

func (h *HSM) checkTokens(p *problems) {
	p.require(h.OnLoss == string(kms.OnLossServe) || h.OnLoss == string(kms.OnLossSeal), "hsm.on_loss", "is %q: want serve or seal", h.OnLoss)
	p.within("hsm.on_loss_after", h.OnLossAfter, time.Second, 30*24*time.Hour)
	names, identities := map[string]bool{kms.DefaultToken: true}, map[string]string{h.identity(): "hsm"}
	for i, t := range h.Tokens {
		field := fmt.Sprintf("hsm.tokens[%d]", i)
		p.require(bundleName.MatchString(t.Name), field+".name", "is %q: want 1 to 63 letters, digits, dots, dashes and underscores, the first a letter or digit", t.Name)
		p.require(!names[t.Name], field+".name", "%q is taken: give each token a name of its own; %q is the one that hsm itself describes", t.Name, kms.DefaultToken)
		names[t.Name] = true
		own := h.Of(t)
		own.checkOne(p, field)
		same := identities[own.identity()]
		p.require(same == "", field, "names the same token as %s: name each token once; where several have one label, by token_serial", same)
		identities[own.identity()] = field
	}
}

func (h *HSM) checkOne(p *problems, field string) {
	p.require(h.TokenLabel != "" || h.TokenSerial != "", field+".token_label", "is missing: name the token by token_label or token_serial")
	sources := 0
	for _, set := range []bool{h.PIN.File != "", h.PIN.Env != "", h.PIN.FD != NoFD} {
		if set {
			sources++
		}
	}
	p.require(sources == 1, field+".pin", "has %d sources: set exactly one of file, env and fd", sources)
	p.require(h.PIN.FD == NoFD || h.PIN.FD == 0 || h.PIN.FD > 2, field+".pin.fd", "is %d: want 0 or a descriptor above 2", h.PIN.FD)
	p.require(h.MaxSessions >= 0 && h.MaxSessions <= 1024, field+".max_sessions", "is %d: want 0 to 1024", h.MaxSessions)
	p.within(field+".timeout", h.Timeout, 100*time.Millisecond, 5*time.Minute)
	h.checkSecretEnv(p, field)
}

// checkSecretEnv refuses to hand the variable that holds a PIN to the workers.
func (h *HSM) checkSecretEnv(p *problems, field string) {
	for i, name := range h.Env {
		p.require(h.PIN.Env == "" || !worker.Matches(name, h.PIN.Env), fmt.Sprintf("hsm.env[%d]", i),
			"is %q, which hands %s.pin.env to the workers: leave it out", name, field)
	}
}

// tokenPaths are the paths in the further tokens.
func (h *HSM) tokenPaths() (paths []*string) {
	for i := range h.Tokens {
		paths = append(paths, &h.Tokens[i].Module, &h.Tokens[i].PIN.File)
	}
	return paths
}
