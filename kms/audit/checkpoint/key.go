package checkpoint

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// Algorithm is a signature type of signed-note.
type Algorithm byte

// The algorithms. Ed25519 is preferred; ECDSA is for tokens that lack it. The
// key ID of an ECDSA key is the start of the SHA-256 of its DER form (SPKI)
// alone, as signed-note says; its signature is ASN.1 DER over the SHA-256 of the
// text. Cosignature is a witness's (tlog-cosignature), which signs no log.
const (
	Ed25519     Algorithm = 0x01
	ECDSAP256   Algorithm = 0x02
	Cosignature Algorithm = 0x04
)

// algorithm is one row of the table.
type algorithm struct {
	parse  func(encoded []byte) (crypto.PublicKey, bool)
	id     func(name string, algorithm Algorithm, encoded []byte) [sha256.Size]byte // begins with the key ID
	verify func(public crypto.PublicKey, text, signature []byte) bool
}

var algorithms = map[Algorithm]algorithm{
	Ed25519:     {parseEd25519, namedID, verifyEd25519},
	ECDSAP256:   {parseECDSA, bareID, verifyECDSA},
	Cosignature: {parseEd25519, namedID, verifyCosignature},
}

// Key is a public key that signs notes, with its name. Keys are comparable by
// String; the zero Key verifies nothing.
type Key struct {
	name      string
	algorithm Algorithm
	encoded   string // of the public key: 32 bytes (RFC 8032), or SPKI in DER
	public    crypto.PublicKey
	id        uint32
}

// NewKey names a public key: ed25519.PublicKey, or *ecdsa.PublicKey on P-256.
// The name of a log's key is the log's origin.
func NewKey(name string, public crypto.PublicKey) (Key, error) {
	switch public := public.(type) {
	case ed25519.PublicKey:
		return newKey(name, Ed25519, public)
	case *ecdsa.PublicKey:
		encoded, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return Key{}, fmt.Errorf("%w: public key: %w", ErrForm, err)
		}
		return newKey(name, ECDSAP256, encoded)
	}
	return Key{}, fmt.Errorf("%w: a public key of type %T; it must be Ed25519 or ECDSA on P-256", ErrForm, public)
}

func newKey(name string, a Algorithm, encoded []byte) (Key, error) {
	if err := checkName(name); err != nil {
		return Key{}, fmt.Errorf("key name: %w", err)
	}
	row, ok := algorithms[a]
	if !ok {
		return Key{}, fmt.Errorf("%w: signature type %#02x; known are 0x01 (Ed25519), 0x02 (ECDSA P-256) and 0x04 (cosignature)", ErrForm, byte(a))
	}
	public, ok := row.parse(encoded)
	if !ok {
		return Key{}, fmt.Errorf("%w: not a public key of signature type %#02x", ErrForm, byte(a))
	}
	sum := row.id(name, a, encoded)
	return Key{name, a, string(encoded), public, binary.BigEndian.Uint32(sum[:])}, nil
}

// ParseKey reads a verifier key (signed-note): name+id+base64(type, public key).
func ParseKey(vkey string) (Key, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, data, ok := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.Strict().DecodeString(data)
	if !ok || err != nil || len(raw) == 0 {
		return Key{}, fmt.Errorf("%w: a key is written name+id+base64", ErrForm)
	}
	key, err := newKey(name, Algorithm(raw[0]), raw[1:])
	if err != nil {
		return Key{}, err
	}
	if key.String() != vkey {
		return Key{}, fmt.Errorf("%w: key id is %s, of this key it is %08x", ErrForm, strconv.Quote(id), key.id)
	}
	return key, nil
}

// String returns the verifier key, as ParseKey reads it.
func (k Key) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.name, k.id, base64.StdEncoding.EncodeToString(append([]byte{byte(k.algorithm)}, k.encoded...)))
}

// Name returns the key's name, for a log's key the log's origin.
func (k Key) Name() string { return k.name }

// KeyHash returns the key ID, by the name that [note.Verifier] has for it.
func (k Key) KeyHash() uint32 { return k.id }

// Algorithm returns what the key signs with.
func (k Key) Algorithm() Algorithm { return k.algorithm }

// Equal reports whether both have the same name, algorithm and public key.
func (k Key) Equal(other Key) bool {
	return k.name == other.name && k.algorithm == other.algorithm && k.encoded == other.encoded
}

// Verify implements [note.Verifier].
func (k Key) Verify(text, signature []byte) bool {
	row, ok := algorithms[k.algorithm]
	return ok && row.verify(k.public, text, signature)
}

// with joins the key with its private half, for one note.
func (k Key) with(ctx context.Context, signer Signer) note.Signer { return noteSigner{k, ctx, signer} }

type noteSigner struct {
	Key
	ctx    context.Context
	signer Signer
}

// Sign implements [note.Signer].
func (s noteSigner) Sign(text []byte) ([]byte, error) {
	signature, err := s.signer.Sign(s.ctx, text)
	if err != nil {
		return nil, err
	}
	if !s.Verify(text, signature) {
		return nil, fmt.Errorf("%w: the signer made no signature of %s", ErrSignature, s.Key)
	}
	return signature, nil
}

func parseEd25519(encoded []byte) (crypto.PublicKey, bool) {
	return ed25519.PublicKey(encoded), len(encoded) == ed25519.PublicKeySize
}

func verifyEd25519(public crypto.PublicKey, text, signature []byte) bool {
	return len(signature) == ed25519.SignatureSize && ed25519.Verify(public.(ed25519.PublicKey), text, signature)
}

func parseECDSA(encoded []byte) (crypto.PublicKey, bool) {
	public, err := x509.ParsePKIXPublicKey(encoded)
	key, ok := public.(*ecdsa.PublicKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, false
	}
	again, err := x509.MarshalPKIXPublicKey(key) // DER has one spelling
	return key, err == nil && string(again) == string(encoded)
}

func verifyECDSA(public crypto.PublicKey, text, signature []byte) bool {
	sum := sha256.Sum256(text)
	return ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), sum[:], signature)
}

// verifyCosignature checks an Ed25519 cosignature: eight bytes of time, seconds
// since 1970, and a signature over that time and the text.
func verifyCosignature(public crypto.PublicKey, text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(signature)
	return at > 0 && at < 1<<63 && verifyEd25519(public, cosigned(at, text), signature[8:])
}

// cosigned is what a witness signs.
func cosigned(at uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), text...)
}

func namedID(name string, a Algorithm, encoded []byte) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte(name), '\n', byte(a)), encoded...))
}

func bareID(_ string, _ Algorithm, encoded []byte) [sha256.Size]byte { return sha256.Sum256(encoded) }

func validName(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+'
	})
}
