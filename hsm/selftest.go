package hsm

import (
	"context"
	"errors"
	"slices"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
	"github.com/keywright/keywright/hsm/internal/selftest"
	"github.com/keywright/keywright/hsm/internal/wait"
)

// SelfTestOptions say how SelfTest goes about it.
type SelfTestOptions struct {
	// TokenObjects makes keys that the token keeps until they are removed at the end,
	// for tokens that know no session objects. An interrupted test leaves some, with
	// the label "keywright self-test, to be removed".
	TokenObjects bool
	// Quick tries no RSA keys of more than 2048 bits, which some devices make for
	// minutes.
	Quick bool
	// Progress, if not nil, hears what is tried next.
	Progress func(string)
}

// TestReport is what SelfTest found out about a token, beside what is known about
// its kind.
type TestReport struct {
	Module  string       `json:"module"` // path of the PKCS#11 library
	Library LibraryInfo  `json:"library"`
	Token   TokenInfo    `json:"token"`
	Profile string       `json:"profile"` // name of the profile that it was recognised by
	Found   TestFindings `json:"found"`
	Use     TokenUse     `json:"use"`
	profile Profile      `json:"-"`
}

// TestFindings are what the token does.
type TestFindings = selftest.Report

// TokenUse is what Keywright would use a token for.
type TokenUse struct {
	// RootWrap is how it would protect a root key, and with it keys of protection
	// level SOFTWARE; "" if it cannot.
	RootWrap string `json:"root_wrap"`
	// Signer is the algorithm of the audit key in the token; "" if it has none.
	Signer string `json:"signer"`
	// Keys are the algorithms of keys of protection level HSM.
	Keys []string `json:"keys"`
}

// Kind returns the profile that the token was recognised by.
func (r TestReport) Kind() Profile { return r.profile }

// SelfTest finds out by trying what a token really does. It logs in once, with one
// try of the PIN, makes keys as session objects, and removes them again. It may take
// minutes on a slow device: bound it with ctx. Errors are those of Open; when ctx
// ends first, the module may still be working, and the process should end.
func SelfTest(ctx context.Context, config Config, options SelfTestOptions) (TestReport, error) {
	config, err := config.withDefaults()
	if err != nil {
		return TestReport{}, classify("self-test", err)
	}
	report, err := wait.For(ctx, func() (TestReport, error) { return selfTest(ctx, config, options) })
	if err != nil {
		return TestReport{}, classify("self-test", err)
	}
	return report, nil
}

func selfTest(ctx context.Context, config Config, options SelfTestOptions) (report TestReport, err error) {
	m, err := cryptoki.Load(config.Module)
	if err != nil {
		return TestReport{}, err
	}
	if err := m.OpenWith(ctx, config.InitArgs); err != nil {
		return TestReport{}, err
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	generation := m.Current()
	if err := m.Enter(generation); err != nil {
		return TestReport{}, err
	}
	defer m.Leave()
	library, err := m.Library()
	if err != nil {
		return TestReport{}, err
	}
	token, err := m.FindToken(config.TokenLabel, config.TokenSerial)
	if err != nil {
		return TestReport{}, err
	}
	c, err := cryptoki.Login(m, generation, token, config.PIN.bytes)
	if err != nil {
		return TestReport{}, err
	}
	defer c.Retire()
	r := TestReport{Module: m.Path, Library: LibraryInfo(library), Token: newTokenInfo(token)}
	r.profile = recognise(m.Path, r.Library, r.Token)
	r.Profile = r.profile.Name
	r.Found, err = selftest.Run(c, selftest.Options{
		TokenObjects: options.TokenObjects,
		ImpliedUses:  r.profile.Uses.Is == "implied",
		Quick:        options.Quick,
		Progress:     options.Progress,
	})
	r.Use = r.use()
	return r, err
}

// use judges the findings as the server would.
func (r TestReport) use() TokenUse {
	u := TokenUse{Keys: []string{}}
	for _, m := range r.profile.RootWrap.Is {
		works := func(found selftest.Mechanism) bool { return found.Name == m.String() && found.Works }
		if slices.Contains(rootMechanisms, m) && slices.ContainsFunc(r.Found.RootWrap, works) {
			u.RootWrap = m.String()
			break
		}
	}
	for _, a := range r.Found.Algorithms {
		if a.Works {
			u.Keys = append(u.Keys, a.Name)
		}
	}
	for _, row := range signerAlgorithms {
		if slices.Contains(u.Keys, row.Name) {
			u.Signer = row.Name
			break
		}
	}
	return u
}
