package keyring

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// wycheproof is a file of C2SP/wycheproof, testvectors_v1.
type wycheproof[G any] struct {
	NumberOfTests int `json:"numberOfTests"`
	TestGroups    []G `json:"testGroups"`
}

// wycheproofCase has the fields that any kind of test has.
type wycheproofCase struct {
	ID      int      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Result  string   `json:"result"`

	Key        hexBytes `json:"key"`
	IV         hexBytes `json:"iv"`
	AAD        hexBytes `json:"aad"`
	Message    hexBytes `json:"msg"`
	Ciphertext hexBytes `json:"ct"`
	Tag        hexBytes `json:"tag"`
	Signature  hexBytes `json:"sig"`
	Label      hexBytes `json:"label"`
	Public     hexBytes `json:"public"`
	Private    hexBytes `json:"private"`
	Shared     hexBytes `json:"shared"`
}

func (c wycheproofCase) valid() bool { return c.Result == "valid" }

func (c wycheproofCase) String() string {
	return fmt.Sprintf("test %d (%s) %v", c.ID, c.Comment, c.Flags)
}

type wycheproofGroup struct {
	KeySize      int              `json:"keySize"`
	IVSize       int              `json:"ivSize"`
	TagSize      int              `json:"tagSize"`
	PublicKeyDER hexBytes         `json:"publicKeyDer"`
	PrivateKey   hexBytes         `json:"privateKeyPkcs8"`
	Tests        []wycheproofCase `json:"tests"`
}

// readWycheproof reads a file and makes sure that it holds what it says.
func readWycheproof(t *testing.T, file string) []wycheproofGroup {
	t.Helper()
	var w wycheproof[wycheproofGroup]
	readVectors(t, file, &w)
	n := 0
	for _, g := range w.TestGroups {
		n += len(g.Tests)
	}
	if n == 0 || n != w.NumberOfTests {
		t.Fatalf("%s: %d tests instead of %d", file, n, w.NumberOfTests)
	}
	return w.TestGroups
}

// counts makes sure that a file tested both sides.
type counts struct{ accepted, refused int }

func (c *counts) add(accepted bool) {
	if accepted {
		c.accepted++
		return
	}
	c.refused++
}

func (c *counts) check(t *testing.T) {
	t.Helper()
	t.Logf("%d accepted, %d refused", c.accepted, c.refused)
	if c.accepted == 0 || c.refused == 0 {
		t.Errorf("%d accepted, %d refused: not a test of both", c.accepted, c.refused)
	}
}

// AEADs with random nonces: the body opens or not; a nonce of another length than
// the row's must not open.
func TestWycheproofAEAD(t *testing.T) {
	for _, c := range []struct {
		file, algorithm string
		ivSize          int
	}{
		{"aes_gcm_test.json", "AES_128_GCM", 96},
		{"aes_gcm_test.json", "AES_256_GCM", 96},
		{"chacha20_poly1305_test.json", "CHACHA20_POLY1305", 96},
		{"xchacha20_poly1305_test.json", "XCHACHA20_POLY1305", 192},
	} {
		t.Run(c.algorithm, func(t *testing.T) {
			a := row(t, c.algorithm)
			var n counts
			for _, g := range readWycheproof(t, c.file) {
				for _, test := range g.Tests {
					n.add(checkAEAD(t, a, test, g.IVSize == c.ivSize))
				}
			}
			n.check(t)
		})
	}
}

func checkAEAD(t *testing.T, a *Algorithm, c wycheproofCase, nonceFits bool) (accepted bool) {
	t.Helper()
	if 8*len(c.Key) != a.keySize {
		if err := a.Validate(NewMaterial(c.Key)); !errors.Is(err, ErrInvalidMaterial) {
			t.Errorf("%s: key of %d bytes: %v", c, len(c.Key), err)
		}
		return false
	}
	primitive := must[any](t)(a.private(NewMaterial(c.Key))).(aead)
	got, err := primitive.open(nil, slices.Concat(c.IV, c.Ciphertext, c.Tag), c.AAD)
	if want := c.valid() && nonceFits; (err == nil) != want || want && !bytes.Equal(got, c.Message) {
		t.Errorf("%s: opened to %x, %v", c, got, err)
	}
	return err == nil
}

// Nonce-based AES-SIV (aead_aes_siv_cmac_test.json) has two pieces of associated
// data and is not this row.
func TestWycheproofSIV(t *testing.T) {
	a := row(t, "AES_256_SIV")
	var n counts
	for _, g := range readWycheproof(t, "aes_siv_cmac_test.json") {
		for _, c := range g.Tests {
			n.add(checkAEAD(t, a, c, true))
			if c.valid() && g.KeySize == a.keySize {
				primitive := must[any](t)(a.private(NewMaterial(c.Key))).(aead)
				if ct := must[[]byte](t)(primitive.seal(nil, c.Message, c.AAD)); !bytes.Equal(ct, c.Ciphertext) {
					t.Errorf("%s: sealed to %x", c, ct)
				}
			}
		}
	}
	n.check(t)
}

// The rows take keys as long as the hash; the primitive takes any.
func TestWycheproofHMAC(t *testing.T) {
	for file, h := range map[string]crypto.Hash{
		"hmac_sha256_test.json": crypto.SHA256,
		"hmac_sha384_test.json": crypto.SHA384,
		"hmac_sha512_test.json": crypto.SHA512,
	} {
		t.Run(file, func(t *testing.T) {
			var n counts
			for _, g := range readWycheproof(t, file) {
				for _, c := range g.Tests {
					n.add(checkHMAC(t, h, c))
				}
			}
			n.check(t)
		})
	}
}

func checkHMAC(t *testing.T, h crypto.Hash, c wycheproofCase) bool {
	t.Helper()
	v := newVersion(&Algorithm{}, Header{}, must[any](t)(newHMAC(h)(c.Key)))
	full := must[[]byte](t)(v.MAC(c.Message))
	if bytes.Equal(full[:len(c.Tag)], c.Tag) != c.valid() {
		t.Errorf("%s: tag is %x", c, full)
	}
	err := v.VerifyMAC(c.Message, c.Tag)
	if want := c.valid() && len(c.Tag) == h.Size(); (err == nil) != want { // truncated: no
		t.Errorf("%s: %v", c, err)
	}
	return err == nil
}

func TestWycheproofSignatures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, algorithm string }{
		{"ecdsa_secp256r1_sha256_test.json", "ECDSA_P256_SHA256"},
		{"ecdsa_secp384r1_sha384_test.json", "ECDSA_P384_SHA384"},
		{"ecdsa_secp521r1_sha512_test.json", "ECDSA_P521_SHA512"},
		{"ecdsa_secp256k1_sha256_test.json", "ECDSA_SECP256K1_SHA256"},
		{"ed25519_test.json", "ED25519"},
		{"rsa_pss_2048_sha256_mgf1_32_test.json", "RSA_PSS_2048_SHA256"},
		{"rsa_pss_3072_sha256_mgf1_32_test.json", "RSA_PSS_3072_SHA256"},
		{"rsa_pss_4096_sha512_mgf1_64_test.json", "RSA_PSS_4096_SHA512"},
		{"rsa_signature_2048_sha256_test.json", "RSA_PKCS1_2048_SHA256"},
		{"rsa_signature_3072_sha384_test.json", "RSA_PKCS1_3072_SHA384"},
		{"rsa_signature_4096_sha512_test.json", "RSA_PKCS1_4096_SHA512"},
	} {
		t.Run(c.algorithm, func(t *testing.T) {
			t.Parallel()
			a := row(t, c.algorithm)
			var n counts
			for _, g := range readWycheproof(t, c.file) {
				v := must[*Version](t)(PublicVersion(a, 1, 1, g.PublicKeyDER))
				for _, test := range g.Tests {
					n.add(checkSignature(t, v, test))
				}
			}
			n.check(t)
		})
	}
}

func checkSignature(t *testing.T, v *Version, c wycheproofCase) bool {
	t.Helper()
	err := v.Verify(c.Message, c.Signature, SignOptions{})
	if err != nil && err != ErrVerify {
		t.Errorf("%s: %v", c, err)
	}
	// Acceptable: PKCS#1 without the NULL of its hash's parameters; not here.
	want := c.valid() && !outsideFIPS(v)
	if (err == nil) != want {
		t.Errorf("%s: %v", c, err)
	}
	if err == nil {
		checkOtherFormats(t, v, c)
	}
	return err == nil
}

// checkOtherFormats converts a good DER signature to each format and back.
func checkOtherFormats(t *testing.T, v *Version, c wycheproofCase) {
	t.Helper()
	for _, f := range []Format{RAW, JWS} {
		s := must[[]byte](t)(v.algorithm.encodeSignature(c.Signature, f))
		if back, ok := v.algorithm.decodeSignature(s, f); !ok || !bytes.Equal(back, c.Signature) {
			t.Errorf("%s comes back from format %d as %x", c, f, back)
		}
	}
}

func TestWycheproofOAEP(t *testing.T) {
	for file, name := range map[string]string{
		"rsa_oaep_2048_sha256_mgf1sha256_test.json": "RSA_OAEP_2048_SHA256",
		"rsa_oaep_3072_sha512_mgf1sha512_test.json": "RSA_OAEP_3072_SHA512",
		"rsa_oaep_4096_sha256_mgf1sha256_test.json": "RSA_OAEP_4096_SHA256",
	} {
		t.Run(name, func(t *testing.T) {
			var n counts
			for _, g := range readWycheproof(t, file) {
				v := must[*Version](t)(NewVersion(row(t, name), 1, 1, NewMaterial(g.PrivateKey)))
				for _, c := range g.Tests {
					got, err := v.DecryptAsymmetric(c.Ciphertext, c.Label)
					if (err == nil) != c.valid() || err == nil && !bytes.Equal(got, c.Message) || err != nil && err != ErrDecrypt {
						t.Errorf("%s: %x, %v", c, got, err)
					}
					n.add(err == nil)
				}
			}
			n.check(t)
		})
	}
}

// Acceptable tests, such as compressed points, explicit parameters and points on
// the twist, may be refused; accepted, they must give the right secret.
func TestWycheproofAgreement(t *testing.T) {
	t.Parallel()
	for file, name := range map[string]string{
		"ecdh_secp256r1_test.json": "ECDH_P256",
		"ecdh_secp384r1_test.json": "ECDH_P384",
		"x25519_test.json":         "X25519",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := row(t, name)
			var n counts
			for _, g := range readWycheproof(t, file) {
				for _, c := range g.Tests {
					n.add(checkAgreement(t, a, c))
				}
			}
			n.check(t)
		})
	}
}

func checkAgreement(t *testing.T, a *Algorithm, c wycheproofCase) bool {
	t.Helper()
	v := must[*Version](t)(NewVersion(a, 1, 1, NewMaterial(fixedWidth(c.Private, (a.keySize+7)/8))))
	got, err := v.SharedSecret(c.Public)
	switch {
	case err != nil && !errors.Is(err, ErrInvalidPublicKey):
		t.Errorf("%s: %v", c, err)
	case err != nil && c.valid() || err == nil && c.Result == "invalid":
		t.Errorf("%s: %x, %v", c, got, err)
	case err == nil && !bytes.Equal(got, c.Shared):
		t.Errorf("%s: secret is %x", c, got)
	case err == nil && slices.Contains(c.Flags, "ZeroSharedSecret"):
		t.Errorf("%s: a secret of zeros", c)
	}
	return err == nil
}

// fixedWidth turns an integer in hex into a scalar.
func fixedWidth(b []byte, size int) []byte {
	b = bytes.TrimLeft(b, "\x00")
	return append(make([]byte, size-len(b)), b...)
}
