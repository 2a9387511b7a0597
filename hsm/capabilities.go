package hsm

import (
	"crypto"
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// ability is what a token can do, as far as it can be known without making keys
// on it.
type ability struct {
	mechanisms map[uint]cryptoki.KeySizes
	noOAEP     []crypto.Hash // listed, but refused with these
	implied    bool          // templates name no use that a key has not (Profile.Uses)
	hsmIV      bool          // the token writes its own IVs into AES-GCM's parameters (Profile.GCMIV)
}

// abilities asks the token for its mechanisms, and tries what its list does not
// say: with which hashes it does RSA-OAEP.
func abilities(c *connection) (ability, error) {
	mechanisms, err := c.Mechanisms()
	if err != nil {
		return ability{}, err
	}
	able := ability{mechanisms: mechanisms}
	if able.has(pkcs11.CKM_RSA_PKCS_OAEP) {
		able.noOAEP = hashesRefused(c)
	}
	return able, nil
}

func (a ability) has(mechanism uint) bool {
	_, ok := a.mechanisms[mechanism]
	return ok
}

// recipes are the ways in which the token may be able to make a key.
func (a ability) recipes(row *algorithm.Algorithm) []algorithm.Recipe {
	if row.Purpose == algorithm.Decrypt && slices.Contains(a.noOAEP, row.Hash) {
		return nil
	}
	recipes := row.RecipesFor(a.mechanisms)
	for i := range recipes {
		recipes[i].Implied = a.implied
	}
	return recipes
}

func (a ability) capabilities() Capabilities {
	c := Capabilities{RootWrap: len(a.recipes(rootAlgorithm)) > 0}
	for _, row := range signerAlgorithms {
		if len(a.recipes(row)) > 0 {
			c.Signing = append(c.Signing, row.Name)
		}
	}
	for _, row := range algorithm.All() {
		if len(a.recipes(row)) > 0 {
			c.Keys = append(c.Keys, row.Name)
		}
	}
	return c
}

// hashesRefused encrypts to a public key, a session object, with each hash. A token
// that takes no such object is believed.
func hashesRefused(c *connection) (refused []crypto.Hash) {
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		fresh, err := c.Fresh()
		if err != nil {
			return nil
		}
		key, err := fresh.Create(strayKey())
		if err == nil {
			_, err = fresh.Encrypt(key, cryptoki.OAEP(h, nil), []byte{1}, strayBits/8)
			if err != nil {
				refused = append(refused, h)
			}
		}
		fresh.Close() // the key goes with it
	}
	return refused
}

const strayBits = 2048

// strayKey is a template of an RSA public key to which nobody has the private one.
func strayKey() []*pkcs11.Attribute {
	var modulus []byte
	for i := range byte(strayBits / 512) {
		block := sha512.Sum512(fmt.Appendf(nil, "keywright probe %d", i))
		modulus = append(modulus, block[:]...)
	}
	modulus[0] |= 0x80
	modulus[len(modulus)-1] |= 1
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, modulus),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
	}
}

// unable is the error for an algorithm that the token cannot do.
func (d *Device) unable(name string) error {
	can := slices.DeleteFunc(slices.Clone(d.capabilities.Keys), func(n string) bool { return n == name })
	list := "none"
	if len(can) > 0 {
		list = strings.Join(can, ", ")
	}
	return fmt.Errorf("%w %q; those that it can: %s", ErrAlgorithm, name, list)
}

// row returns the row of an algorithm that the token can do: ErrAlgorithm.
func (d *Device) row(name string) (*algorithm.Algorithm, error) {
	row, ok := algorithm.Lookup(name)
	if !ok || !slices.Contains(d.capabilities.Keys, name) {
		return nil, d.unable(name)
	}
	return row, nil
}
