package hsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// TokenInfo describes an initialised token.
type TokenInfo struct {
	Label        string
	Serial       string
	Manufacturer string
	Model        string

	slot        uint
	maxSessions int // 0: unknown or unlimited
}

func (t TokenInfo) String() string { return fmt.Sprintf("%q (serial %s)", t.Label, t.Serial) }

// ListTokens returns the initialised tokens of a module, without logging in.
func ListTokens(ctx context.Context, modulePath string) ([]TokenInfo, error) {
	return await(ctx, func() ([]TokenInfo, error) {
		m, err := loadModule(modulePath)
		if err != nil {
			return nil, classify("list tokens", err)
		}
		if err := m.open(ctx); err != nil {
			return nil, classify("list tokens", err)
		}
		tokens, err := m.tokens()
		if err = errors.Join(err, m.close(context.WithoutCancel(ctx))); err != nil {
			return nil, classify("list tokens", err)
		}
		return tokens, nil
	})
}

// tokens lists the initialised tokens. The module must be initialised.
func (m *module) tokens() ([]TokenInfo, error) {
	slots, err := m.p11.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	var tokens []TokenInfo
	for _, slot := range slots {
		info, err := m.p11.GetTokenInfo(slot)
		if isCode(err, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED) {
			continue // pulled since, or foreign: no reason not to use the others
		}
		if err != nil {
			return nil, err
		}
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 {
			tokens = append(tokens, newTokenInfo(slot, info))
		}
	}
	return tokens, nil
}

func newTokenInfo(slot uint, info pkcs11.TokenInfo) TokenInfo {
	trim := func(s string) string { return strings.TrimRight(s, " \x00") }
	return TokenInfo{
		Label:        trim(info.Label),
		Serial:       trim(info.SerialNumber),
		Manufacturer: trim(info.ManufacturerID),
		Model:        trim(info.Model),
		slot:         slot,
		maxSessions:  sessionLimit(info.MaxSessionCount, info.MaxRwSessionCount),
	}
}

// sessionLimit is the smallest stated limit: 0 stands for "unlimited", all ones
// for "unknown" (CK_TOKEN_INFO).
func sessionLimit(counts ...uint) int {
	limit := 0
	for _, n := range counts {
		if n == 0 || n > 1<<20 {
			continue
		}
		if limit == 0 || int(n) < limit {
			limit = int(n)
		}
	}
	return limit
}

// findToken picks the token by serial, or else by label.
func (m *module) findToken(label, serial string) (TokenInfo, error) {
	tokens, err := m.tokens()
	if err != nil {
		return TokenInfo{}, err
	}
	var found []TokenInfo
	for _, token := range tokens {
		if serial != "" && token.Serial == serial || serial == "" && token.Label == label {
			found = append(found, token)
		}
	}
	switch len(found) {
	case 0:
		return TokenInfo{}, fmt.Errorf("%w: label %q serial %q; tokens present: %s", ErrTokenNotFound, label, serial, describe(tokens))
	case 1:
		return found[0], nil
	}
	return TokenInfo{}, fmt.Errorf("%w: %s; set the token's serial", ErrAmbiguousToken, describe(found))
}

func describe(tokens []TokenInfo) string {
	if len(tokens) == 0 {
		return "none"
	}
	var names []string
	for _, token := range tokens {
		names = append(names, token.String())
	}
	return strings.Join(names, ", ")
}

func isCode(err error, codes ...uint) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains(codes, uint(code))
}

// InitToken initialises a free slot's token with a label of at most 32 bytes and
// both PINs (C_InitToken, C_InitPIN). It never touches an initialised token, and
// refuses a label that is taken (ErrTokenExists). Nobody may have the module open
// in this process (ErrModuleInUse); it is finalised again before the return.
func InitToken(ctx context.Context, modulePath, label, soPIN, pin string) error {
	_, err := await(ctx, func() (struct{}, error) {
		m, err := loadModule(modulePath)
		if err == nil {
			err = m.exclusively(ctx, func() error { return m.initToken(label, soPIN, pin) })
		}
		return struct{}{}, err
	})
	if err != nil {
		return classify("initialise token", err)
	}
	return nil
}

func (m *module) initToken(label, soPIN, pin string) error {
	if label == "" || len(label) > 32 {
		return fmt.Errorf("%w: token label: want 1 to 32 bytes", ErrInvalidArgument)
	}
	tokens, err := m.tokens()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(tokens, func(t TokenInfo) bool { return t.Label == label }) {
		return fmt.Errorf("%w: label %q", ErrTokenExists, label)
	}
	slot, err := m.freeSlot()
	if err != nil {
		return err
	}
	if err := m.p11.InitToken(slot, soPIN, label); err != nil {
		return err
	}
	return m.initPIN(slot, soPIN, pin)
}

func (m *module) freeSlot() (uint, error) {
	slots, err := m.p11.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, slot := range slots {
		info, err := m.p11.GetTokenInfo(slot)
		if err == nil && info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("%w: no slot holds an uninitialised token", ErrTokenNotFound)
}

func (m *module) initPIN(slot uint, soPIN, pin string) error {
	session, err := m.p11.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	defer func() { _ = m.p11.CloseSession(session) }() // logs out with it
	if err := m.p11.Login(session, pkcs11.CKU_SO, soPIN); err != nil {
		return err
	}
	return m.p11.InitPIN(session, pin)
}
