package hsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
	"github.com/keywright/keywright/hsm/internal/wait"
)

// TokenInfo describes an initialised token.
type TokenInfo struct {
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
}

// LibraryInfo is what a module says about itself (CK_INFO).
type LibraryInfo struct {
	Manufacturer string `json:"manufacturer"`
	Description  string `json:"description"`
	Version      string `json:"version"`  // of the library, "2.6"
	Cryptoki     string `json:"cryptoki"` // version of PKCS#11 that it implements, "2.40"
}

func (t TokenInfo) String() string {
	return cryptoki.Token{Label: t.Label, Serial: t.Serial}.String()
}

// ListTokens returns the initialised tokens of a module, without logging in.
func ListTokens(ctx context.Context, modulePath string) ([]TokenInfo, error) {
	return wait.For(ctx, func() ([]TokenInfo, error) {
		m, err := cryptoki.Load(modulePath)
		if err != nil {
			return nil, classify("list tokens", err)
		}
		if err := m.Open(ctx); err != nil {
			return nil, classify("list tokens", err)
		}
		tokens, err := m.Tokens()
		if err = errors.Join(err, m.Close(context.WithoutCancel(ctx))); err != nil {
			return nil, classify("list tokens", err)
		}
		return tokenInfos(tokens), nil
	})
}

func tokenInfos(tokens []cryptoki.Token) []TokenInfo {
	var infos []TokenInfo
	for _, t := range tokens {
		infos = append(infos, newTokenInfo(t))
	}
	return infos
}

func newTokenInfo(t cryptoki.Token) TokenInfo {
	return TokenInfo{Label: t.Label, Serial: t.Serial, Manufacturer: t.Manufacturer, Model: t.Model}
}

// InitToken initialises a free slot's token with a label of at most 32 bytes and
// both PINs (C_InitToken, C_InitPIN). It never touches an initialised token, and
// refuses a label that is taken (ErrTokenExists). Nobody may have the module open
// in this process (ErrModuleInUse); it is finalised again before the return.
func InitToken(ctx context.Context, modulePath, label, soPIN, pin string) error {
	_, err := wait.For(ctx, func() (struct{}, error) {
		m, err := cryptoki.Load(modulePath)
		if err == nil {
			err = m.Exclusively(ctx, func() error { return initToken(m, label, soPIN, pin) })
		}
		return struct{}{}, err
	})
	if err != nil {
		return classify("initialise token", err)
	}
	return nil
}

func initToken(m *cryptoki.Module, label, soPIN, pin string) error {
	if label == "" || len(label) > 32 {
		return fmt.Errorf("%w: token label: want 1 to 32 bytes", ErrInvalidArgument)
	}
	return m.InitToken(label, soPIN, pin)
}
