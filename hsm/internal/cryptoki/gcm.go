package cryptoki

import "github.com/miekg/pkcs11"

// Sizes of AES-GCM as Keywright uses it (NIST SP 800-38D), in bytes.
const (
	IVSize  = 12
	TagSize = 16
)

// This file holds all encryption inside the token. miekg/pkcs11 asks for the
// output's length first, which costs a round trip, and does not free its output
// buffer, of the plaintext's size, when a decryption fails.

// Encrypt runs AES-GCM (CKM_AES_GCM, PKCS#11 v2.40 section 2.11) in the token and
// returns ciphertext ‖ tag. The IV is ours: some modules take a missing one for a
// constant.
func (s *Session) Encrypt(key Handle, iv, plaintext, aad []byte) ([]byte, error) {
	params := gcmParams(iv, aad)
	defer params.Free()
	err := s.module.p11.EncryptInit(s.handle, gcmMechanism(params), key)
	if err != nil {
		return nil, err
	}
	return s.module.p11.Encrypt(s.handle, plaintext)
}

// Decrypt is the inverse of Encrypt. A bad tag and a sick device may give the same
// error.
func (s *Session) Decrypt(key Handle, iv, ciphertext, aad []byte) ([]byte, error) {
	params := gcmParams(iv, aad)
	defer params.Free()
	err := s.module.p11.DecryptInit(s.handle, gcmMechanism(params), key)
	if err != nil {
		return nil, err
	}
	return s.module.p11.Decrypt(s.handle, ciphertext)
}

func gcmParams(iv, aad []byte) *pkcs11.GCMParams {
	if len(iv) != IVSize {
		panic("hsm: IV of wrong size") // a bug here, never input
	}
	return pkcs11.NewGCMParams(iv, aad, TagSize*8)
}

func gcmMechanism(params *pkcs11.GCMParams) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}
}
