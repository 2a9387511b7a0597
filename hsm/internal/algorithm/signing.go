package algorithm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"slices"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// ecdsaSigning is ECDSA over a digest (FIPS 186-5).
type ecdsaSigning struct{ curve elliptic.Curve }

func (ecdsaSigning) Mechanism() cryptoki.Mechanism { return cryptoki.Plain(pkcs11.CKM_ECDSA) }
func (ecdsaSigning) Input(digest []byte) []byte    { return digest }
func (s ecdsaSigning) Size() int                   { return 2 * ((s.curve.Params().BitSize + 7) / 8) }

// Encode turns R ‖ S (PKCS#11 v2.40 section 2.3.1) into ASN.1 DER (RFC 3279).
func (ecdsaSigning) Encode(raw []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addInteger(b, raw[:len(raw)/2])
		addInteger(b, raw[len(raw)/2:])
	})
	return b.Bytes()
}

// addInteger adds a number that is not negative: without leading zeros, but for one
// where it would look negative else.
func addInteger(b *cryptobyte.Builder, number []byte) {
	number = bytes.TrimLeft(number, "\x00")
	b.AddASN1(cryptobyte_asn1.INTEGER, func(b *cryptobyte.Builder) {
		if len(number) == 0 || number[0]&0x80 != 0 {
			b.AddUint8(0)
		}
		b.AddBytes(number)
	})
}

func (ecdsaSigning) Verify(public crypto.PublicKey, digest, signature []byte) bool {
	key, ok := public.(*ecdsa.PublicKey)
	return ok && ecdsa.VerifyASN1(key, digest, signature)
}

// eddsaSigning is Ed25519 of a message (RFC 8032).
type eddsaSigning struct{}

func (eddsaSigning) Mechanism() cryptoki.Mechanism     { return cryptoki.Plain(ckmEdDSA) }
func (eddsaSigning) Input(message []byte) []byte       { return message }
func (eddsaSigning) Size() int                         { return ed25519.SignatureSize }
func (eddsaSigning) Encode(raw []byte) ([]byte, error) { return raw, nil }

func (eddsaSigning) Verify(public crypto.PublicKey, message, signature []byte) bool {
	key, ok := public.(ed25519.PublicKey)
	return ok && ed25519.Verify(key, message, signature)
}

// pssSigning is RSASSA-PSS over a digest (RFC 8017, 8.1).
type pssSigning struct {
	bits int
	hash crypto.Hash
}

func (s pssSigning) Mechanism() cryptoki.Mechanism   { return cryptoki.PSS(s.hash) }
func (pssSigning) Input(digest []byte) []byte        { return digest }
func (s pssSigning) Size() int                       { return s.bits / 8 }
func (pssSigning) Encode(raw []byte) ([]byte, error) { return raw, nil }

func (s pssSigning) Verify(public crypto.PublicKey, digest, signature []byte) bool {
	key, ok := public.(*rsa.PublicKey)
	return ok && rsa.VerifyPSS(key, s.hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}

// pkcs1Signing is RSASSA-PKCS1-v1_5 over a digest (RFC 8017, 8.2).
type pkcs1Signing struct {
	bits int
	hash crypto.Hash
}

func (pkcs1Signing) Mechanism() cryptoki.Mechanism     { return cryptoki.Plain(pkcs11.CKM_RSA_PKCS) }
func (s pkcs1Signing) Size() int                       { return s.bits / 8 }
func (pkcs1Signing) Encode(raw []byte) ([]byte, error) { return raw, nil }

// Input is the digest's DigestInfo.
func (s pkcs1Signing) Input(digest []byte) []byte {
	return slices.Concat(digestInfo[s.hash], digest)
}

func (s pkcs1Signing) Verify(public crypto.PublicKey, digest, signature []byte) bool {
	key, ok := public.(*rsa.PublicKey)
	return ok && rsa.VerifyPKCS1v15(key, s.hash, digest, signature) == nil
}

// digestInfo holds the DER before a digest (RFC 8017, 9.2, note 1).
var digestInfo = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}
