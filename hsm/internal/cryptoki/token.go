package cryptoki

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// Token describes an initialised token.
type Token struct {
	Label        string
	Serial       string
	Manufacturer string
	Model        string
	MaxSessions  int // 0: unknown or unlimited

	slot uint
}

func (t Token) String() string { return fmt.Sprintf("%q (serial %s)", t.Label, t.Serial) }

// Tokens lists the initialised tokens. The module must be initialised.
func (m *Module) Tokens() ([]Token, error) {
	slots, err := m.p11.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	var tokens []Token
	for _, slot := range slots {
		info, err := m.p11.GetTokenInfo(slot)
		if isCode(err, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED) {
			continue // pulled since, or foreign: no reason not to use the others
		}
		if err != nil {
			return nil, err
		}
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 {
			tokens = append(tokens, newToken(slot, info))
		}
	}
	return tokens, nil
}

// TokenInfo asks for the information of the token that is in the session's slot now.
func (s *Session) TokenInfo() (Token, error) {
	info, err := s.module.p11.GetTokenInfo(s.Token.slot)
	if err != nil {
		return Token{}, err
	}
	return newToken(s.Token.slot, info), nil
}

// KeySizes are the limits that a token states for a mechanism (CK_MECHANISM_INFO),
// in bits for RSA and curves; for others modules differ.
type KeySizes struct{ Min, Max uint }

// Allow tells whether a key of so many bits is within the limits. A maximum of 0 is
// none.
func (k KeySizes) Allow(bits int) bool {
	return k.Max == 0 || uint(bits) >= k.Min && uint(bits) <= k.Max
}

// Mechanisms lists what the token can do, by CKM_* number.
func (c *Connection) Mechanisms() (map[uint]KeySizes, error) {
	list, err := c.module.p11.GetMechanismList(c.Token.slot)
	if err != nil {
		return nil, err
	}
	mechanisms := make(map[uint]KeySizes, len(list))
	for _, m := range list {
		info, err := c.module.p11.GetMechanismInfo(c.Token.slot, []*pkcs11.Mechanism{m})
		if err != nil {
			continue // listed, but not to be had
		}
		mechanisms[m.Mechanism] = KeySizes{info.MinKeySize, info.MaxKeySize}
	}
	return mechanisms, nil
}

func newToken(slot uint, info pkcs11.TokenInfo) Token {
	trim := func(s string) string { return strings.TrimRight(s, " \x00") }
	return Token{
		Label:        trim(info.Label),
		Serial:       trim(info.SerialNumber),
		Manufacturer: trim(info.ManufacturerID),
		Model:        trim(info.Model),
		slot:         slot,
		MaxSessions:  sessionLimit(info.MaxSessionCount, info.MaxRwSessionCount),
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

// FindToken picks the token by serial, or else by label: ErrTokenNotFound,
// ErrAmbiguousToken. Where several have the serial (both of NSS softokn's are
// numbered 0), the label decides among them. The module must be initialised.
func (m *Module) FindToken(label, serial string) (Token, error) {
	tokens, err := m.Tokens()
	if err != nil {
		return Token{}, err
	}
	var found []Token
	for _, token := range tokens {
		if serial != "" && token.Serial == serial || serial == "" && token.Label == label {
			found = append(found, token)
		}
	}
	if serial != "" && label != "" && len(found) > 1 {
		found = slices.DeleteFunc(found, func(t Token) bool { return t.Label != label })
	}
	switch len(found) {
	case 0:
		return Token{}, fmt.Errorf("%w: label %q serial %q; tokens present: %s", ErrTokenNotFound, label, serial, describe(tokens))
	case 1:
		return found[0], nil
	}
	return Token{}, fmt.Errorf("%w: %s; set the token's serial, and its label where that is not enough", ErrAmbiguousToken, describe(found))
}

func describe(tokens []Token) string {
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
// both PINs (C_InitToken, C_InitPIN), unless one of that label exists
// (ErrTokenExists). The caller has the module exclusively.
func (m *Module) InitToken(label, soPIN, pin string) error {
	tokens, err := m.Tokens()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(tokens, func(t Token) bool { return t.Label == label }) {
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

func (m *Module) freeSlot() (uint, error) {
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

func (m *Module) initPIN(slot uint, soPIN, pin string) error {
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
