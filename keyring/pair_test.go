package keyring

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os/exec"
	"testing"
)

// Each asymmetric algorithm's pair must be two halves of one key to OpenSSL, and,
// where crypto/x509 knows the curve, to Go.
func TestEncodePair(t *testing.T) {
	for _, a := range Algorithms() {
		if !a.Asymmetric() {
			if _, _, err := a.EncodePair(NewMaterial(make([]byte, a.KeySize()/8))); !errors.Is(err, ErrPurpose) {
				t.Errorf("%s: error %v, want ErrPurpose", a, err)
			}
			continue
		}
		if a.approved() != nil {
			continue
		}
		t.Run(a.Name(), func(t *testing.T) {
			public, private, err := a.EncodePair(goldenMaterial(t, a))
			if err != nil {
				t.Fatal(err)
			}
			if a.Name() != "ECDSA_SECP256K1_SHA256" {
				if _, err := x509.ParsePKCS8PrivateKey(private); err != nil {
					t.Errorf("crypto/x509 refuses the private key: %v", err)
				}
			}
			derived := opensslPublic(t, private)
			if !bytes.Equal(derived, public) {
				t.Errorf("openssl derives another public key:\n%x\n%x", derived, public)
			}
		})
	}
}

func opensslPublic(t *testing.T, private []byte) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		unavailable(t, "openssl is missing: install it to check key pairs with it")
	}
	command := exec.Command(path, "pkey", "-inform", "DER", "-pubout", "-outform", "DER")
	command.Stdin = bytes.NewReader(private)
	out, err := command.Output()
	if err != nil {
		t.Fatalf("openssl refuses the private key: %v", err)
	}
	return out
}
