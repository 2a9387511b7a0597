package algorithm

import (
	"bytes"
	"crypto"
	"slices"

	"github.com/miekg/pkcs11"
)

// secret is the family of keys that are random bytes.
type secret struct{}

func (secret) generation(bits int, r Recipe) (_, private []*pkcs11.Attribute) {
	return nil, []*pkcs11.Attribute{
		class(pkcs11.CKO_SECRET_KEY), keyType(r),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, bits/8),
	}
}

func (secret) attributes() []uint {
	return []uint{pkcs11.CKA_KEY_TYPE, pkcs11.CKA_VALUE_LEN}
}

func (secret) read(a *Algorithm, values [][]byte) (crypto.PublicKey, error) {
	ofType := func(r Recipe) bool { return bytes.Equal(keyType(r).Value, values[0]) }
	if !slices.ContainsFunc(a.Recipes, ofType) {
		return nil, a.other("CKA_KEY_TYPE %x", values[0])
	}
	size, unsaid := pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, a.Bits/8).Value, make([]byte, len(values[1]))
	if !bytes.Equal(values[1], size) && !bytes.Equal(values[1], unsaid) { // openCryptoki says 0 of imported keys
		return nil, a.other("CKA_VALUE_LEN %x", values[1])
	}
	return nil, nil
}

func (secret) material(a *Algorithm, material []byte) (_, private []*pkcs11.Attribute, _ crypto.PublicKey, err error) {
	if len(material) != a.Bits/8 {
		return nil, nil, nil, a.invalid()
	}
	return nil, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, bytes.Clone(material))}, nil, nil
}
