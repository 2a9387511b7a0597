// Package algorithm is the table of the algorithms whose keys live in a token: what
// to ask the token for, and how to read and verify what it returns. It calls no
// token, keeps no state and is safe for concurrent use.
package algorithm

import (
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// Purpose is what a key of an algorithm is for.
type Purpose uint8

// The purposes.
const (
	Encrypt Purpose = 1 + iota // and decrypt, with one secret key
	Sign
	MAC
	Decrypt // what was encrypted to the public key
	Agree
)

// Algorithm is one row of the table. It is not to be changed.
type Algorithm struct {
	Name    string // as keyring calls it
	Purpose Purpose
	Bits    int         // of a secret key, of the field of a curve, of an RSA modulus
	Hash    crypto.Hash // of signatures, MACs and OAEP; 0 where there is none
	Use     uint        // CKM_* that a key is used with
	Recipes []Recipe    // ways to make a key, the preferred first
	Signing Signing     // nil unless the purpose is Sign

	family family
}

// Recipe is a way to make a key that some modules understand.
type Recipe struct {
	Generate uint   // CKM_* that makes a key or a pair
	KeyType  uint   // CKK_*
	Params   []byte // CKA_EC_PARAMS, DER; nil unless it is on a curve
	// Implied leaves out of templates which uses a key has not, for modules that
	// take no such thing.
	Implied bool
}

// sized tells whether modules agree on how to state the sizes of such keys: in bits.
// For AES there are bytes too, for Curve25519 both 255 and 256.
func (r Recipe) sized() bool {
	return r.KeyType == pkcs11.CKK_RSA || r.KeyType == pkcs11.CKK_EC
}

// Signing is how a row signs.
type Signing interface {
	// Mechanism is what the token signs with.
	Mechanism() cryptoki.Mechanism
	// Input is what the token signs for a digest, or for a message where the
	// algorithm hashes itself.
	Input(data []byte) []byte
	// Size is how long the token's signatures are, in bytes.
	Size() int
	// Encode turns Size bytes from the token into a signature.
	Encode(raw []byte) ([]byte, error)
	// Verify checks a signature as Encode returns it.
	Verify(public crypto.PublicKey, data, signature []byte) bool
}

// family is what algorithms of one kind of key have in common.
type family interface {
	// generation is what a template needs beyond what all templates have: that of
	// the public key, if there is one, and of the secret or private key.
	generation(bits int, r Recipe) (public, private []*pkcs11.Attribute)
	// attributes are those that read needs, of the public key or else the secret key.
	attributes() []uint
	// read makes the public key of what the token says, or nil. It refuses what is
	// no key of the algorithm.
	read(a *Algorithm, values [][]byte) (crypto.PublicKey, error)
	// material reads a key from outside, and is generation for it.
	material(a *Algorithm, material []byte) (public, private []*pkcs11.Attribute, key crypto.PublicKey, err error)
}

// What can go wrong.
var (
	ErrOther    = errors.New("key of another algorithm") // another type, size or curve
	ErrMaterial = errors.New("not a key of the algorithm")
)

// Lookup finds a row by its name.
func Lookup(name string) (*Algorithm, bool) {
	i := slices.IndexFunc(table, func(a *Algorithm) bool { return a.Name == name })
	if i < 0 {
		return nil, false
	}
	return table[i], true
}

// All returns the table.
func All() []*Algorithm { return slices.Clone(table) }

// Digest is what a row that signs takes for a message.
func (a *Algorithm) Digest(message []byte) []byte {
	if a.Hash == 0 {
		return message
	}
	h := a.Hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// Pair tells whether keys have a public half.
func (a *Algorithm) Pair() bool {
	_, secret := a.family.(secret)
	return !secret
}

// Object names the key that a token works with: the secret or the private one.
func (a *Algorithm) Object(id [16]byte) cryptoki.Object {
	if a.Pair() {
		return cryptoki.Object{ID: id, Class: pkcs11.CKO_PRIVATE_KEY}
	}
	return cryptoki.Object{ID: id, Class: pkcs11.CKO_SECRET_KEY}
}

// PublicObject names the object that Read's attributes are read from.
func (a *Algorithm) PublicObject(id [16]byte) cryptoki.Object {
	if a.Pair() {
		return cryptoki.Object{ID: id, Class: pkcs11.CKO_PUBLIC_KEY}
	}
	return a.Object(id)
}

// Attributes are what Read needs of PublicObject, as CKA_* numbers.
func (a *Algorithm) Attributes() []uint { return a.family.attributes() }

// Read makes the public key, or nil for a secret key, of the attributes' values:
// ErrOther.
func (a *Algorithm) Read(values [][]byte) (crypto.PublicKey, error) {
	return a.family.read(a, values)
}

// RecipesFor returns the recipes that a token's mechanisms allow.
func (a *Algorithm) RecipesFor(mechanisms map[uint]cryptoki.KeySizes) []Recipe {
	if _, ok := mechanisms[a.Use]; !ok {
		return nil
	}
	var able []Recipe
	for _, r := range a.Recipes {
		if sizes, ok := mechanisms[r.Generate]; ok && (!r.sized() || sizes.Allow(a.Bits)) {
			able = append(able, r)
		}
	}
	return able
}

func (a *Algorithm) other(format string, args ...any) error {
	return fmt.Errorf("%w: "+format+", want one of %s", append(append([]any{ErrOther}, args...), a.Name)...)
}

func (a *Algorithm) invalid() error {
	return fmt.Errorf("%w: want a key of %s", ErrMaterial, a.Name)
}
