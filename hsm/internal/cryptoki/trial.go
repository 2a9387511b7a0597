package cryptoki

import (
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// This file holds what a self-test asks of a token and nothing else does.

// Library is what a module says about itself (CK_INFO).
type Library struct {
	Manufacturer, Description string
	Version, Cryptoki         string // such as "2.6"
}

// Library asks the module about itself. It must be initialised.
func (m *Module) Library() (Library, error) {
	info, err := m.p11.GetInfo()
	if err != nil {
		return Library{}, err
	}
	trim := func(s string) string { return strings.TrimRight(s, " \x00") }
	version := func(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
	return Library{
		Manufacturer: trim(info.ManufacturerID),
		Description:  trim(info.LibraryDescription),
		Version:      version(info.LibraryVersion),
		Cryptoki:     version(info.CryptokiVersion),
	}, nil
}

// GCMWithoutIV is GCM with no IV at all, which a token should refuse.
func GCMWithoutIV(aad []byte) Mechanism {
	return Mechanism{number: pkcs11.CKM_AES_GCM, parameters: gcmParameters, numbers: [3]uint{8 * TagSize}, b: aad}
}

// Make makes a secret key of a template by a mechanism (CKM_*), which no cache
// knows.
func (s *Session) Make(generate uint, template []*pkcs11.Attribute) (Handle, error) {
	defer s.module.changes.change()()
	return s.module.p11.GenerateKey(s.handle, mechanism(generate), template)
}

// MakePair is Make of a key pair.
func (s *Session) MakePair(generate uint, public, private []*pkcs11.Attribute) (publicKey, privateKey Handle, err error) {
	defer s.module.changes.change()()
	return s.module.p11.GenerateKeyPair(s.handle, mechanism(generate), public, private)
}

// Wrap wraps a key by a mechanism without parameters (C_WrapKey).
func (s *Session) Wrap(by uint, wrapping, key Handle) ([]byte, error) {
	return s.module.p11.WrapKey(s.handle, mechanism(by), wrapping, key)
}

// Unwrap makes a key of what Wrap returned (C_UnwrapKey).
func (s *Session) Unwrap(by uint, unwrapping Handle, wrapped []byte, template []*pkcs11.Attribute) (Handle, error) {
	defer s.module.changes.change()()
	return s.module.p11.UnwrapKey(s.handle, mechanism(by), unwrapping, wrapped, template)
}

// Discard destroys one object.
func (s *Session) Discard(object Handle) error {
	defer s.module.changes.change()()
	return s.module.p11.DestroyObject(s.handle, object)
}

// EncryptAskingSize encrypts with AES-GCM as most programs do: it asks for the
// output's size first.
func (s *Session) EncryptAskingSize(key Handle, iv, plaintext []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(iv, nil, TagSize*8)
	defer params.Free()
	m := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}
	if err := s.module.p11.EncryptInit(s.handle, m, key); err != nil {
		return nil, err
	}
	return s.module.p11.Encrypt(s.handle, plaintext)
}
