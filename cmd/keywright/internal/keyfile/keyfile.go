// Package keyfile reads private and symmetric keys from the files that people
// keep them in, and turns them into the material that the server takes: the raw
// bytes of a symmetric key, the private key of a pair in PKCS#8, DER.
//
// It changes how a key is written, not more: whether it is one of the algorithm
// that is asked for, and whether its parts belong together, the server says. The
// package holds no state.
package keyfile

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 64 << 10

// Format is how a file holds its key.
type Format string

// The formats. Auto finds out: PEM by its first line, JWK by being a JSON object,
// DER by being a private key whole; all else is Raw.
const (
	Auto Format = "auto"
	PEM  Format = "pem"
	DER  Format = "der"
	JWK  Format = "jwk"
	Raw  Format = "raw"
)

// Formats are all of them, for help and errors.
func Formats() []string {
	return []string{string(Auto), string(PEM), string(DER), string(JWK), string(Raw)}
}

// ParseFormat returns the format of that name.
func ParseFormat(name string) (Format, error) {
	for _, known := range Formats() {
		if name == known {
			return Format(name), nil
		}
	}
	return "", fmt.Errorf("must be %s, not %q", strings.Join(Formats(), ", "), name)
}

// Errors of what no key can be read from.
var (
	errEmpty     = errors.New("holds no key: it is empty")
	errEncrypted = errors.New("holds an encrypted key; decrypt it first, as with openssl pkey -in FILE")
	errNoPrivate = errors.New("holds no private key: give PKCS#8, PKCS#1 or SEC1")
)

// Parse returns the key in a file's content, of which it keeps nothing; the result
// is the caller's to wipe. Errors say what is wrong with the file and hold nothing
// of it.
func Parse(content []byte, format Format) ([]byte, error) {
	if len(content) == 0 {
		return nil, errEmpty
	}
	switch format {
	case PEM:
		return parsePEM(content)
	case DER:
		return parseDER(content)
	case JWK:
		return parseJWK(content)
	case Raw:
		return bytes.Clone(content), nil
	}
	text := bytes.TrimSpace(content)
	switch {
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return parsePEM(content)
	case bytes.HasPrefix(text, []byte("{")) && bytes.HasSuffix(text, []byte("}")) && bytes.Contains(text, []byte(`"kty"`)):
		return parseJWK(content)
	}
	if der, err := parseDER(content); err == nil || errors.Is(err, errEncrypted) {
		return der, err
	}
	return bytes.Clone(content), nil
}

// parsePEM reads the one private key in a file (RFC 7468, and OpenSSL's older
// forms), which may hold curve parameters and certificates beside it.
func parsePEM(content []byte) (key []byte, err error) {
	found := false
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, errEncrypted
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			continue
		case block.Type == "OPENSSH PRIVATE KEY":
			return nil, errors.New("holds a key of OpenSSH; convert it first, as with ssh-keygen -p -m PKCS8 -f COPY")
		case found:
			return nil, errors.New("holds more than one private key; give a file with one")
		}
		found = true
		key, err = parseDER(block.Bytes)
		clear(block.Bytes)
		if err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, errNoPrivate
	}
	return key, nil
}

// parseDER reads PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) or SEC1 (RFC 5915), told
// apart by what follows the version.
func parseDER(der []byte) ([]byte, error) {
	switch {
	case reads(der, &privateKeyInfo{}):
		return bytes.Clone(der), nil
	case reads(der, &rsaPrivateKey{}):
		return asPKCS8(algorithm{ID: oidRSA, Parameters: asn1.NullRawValue}, der)
	case reads(der, &encryptedKey{}):
		return nil, errEncrypted
	}
	var key ecPrivateKey
	if !reads(der, &key) {
		return nil, errNoPrivate
	}
	defer clear(key.Scalar)
	return key.asPKCS8()
}

// reads tells whether der is a value of into's type and nothing more.
func reads(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}

var (
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidX25519  = asn1.ObjectIdentifier{1, 3, 101, 110}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
)

type algorithm struct {
	ID         asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

// privateKeyInfo is PKCS#8's; what may follow the key is left alone.
type privateKeyInfo struct {
	Version   int
	Algorithm algorithm
	Key       []byte
}

// encryptedKey is PKCS#8's EncryptedPrivateKeyInfo.
type encryptedKey struct {
	Algorithm algorithm
	Data      []byte
}

// rsaPrivateKey is the beginning of PKCS#1's.
type rsaPrivateKey struct {
	Version     int
	N, E, D, P  asn1.RawValue
	Q, DP, DQ   asn1.RawValue
	Coefficient asn1.RawValue
}

type ecPrivateKey struct {
	Version   int
	Scalar    []byte
	Curve     asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
	PublicKey asn1.BitString        `asn1:"optional,explicit,tag:1"`
}

func (k ecPrivateKey) asPKCS8() ([]byte, error) {
	if len(k.Curve) == 0 {
		return nil, errors.New("holds a key that does not name its curve; convert it with openssl pkcs8 -topk8 -nocrypt")
	}
	curve, err := asn1.Marshal(k.Curve)
	if err != nil {
		return nil, errNoPrivate
	}
	inner, err := asn1.Marshal(k)
	if err != nil {
		return nil, errNoPrivate
	}
	defer clear(inner)
	return asPKCS8(algorithm{ID: oidEC, Parameters: asn1.RawValue{FullBytes: curve}}, inner)
}

func asPKCS8(a algorithm, key []byte) ([]byte, error) {
	der, err := asn1.Marshal(privateKeyInfo{Algorithm: a, Key: key})
	if err != nil {
		return nil, errNoPrivate
	}
	return der, nil
}
