package algorithm

import (
	"slices"

	"github.com/miekg/pkcs11"
)

// usage holds the attributes that let a key do what its purpose needs, and nothing
// else.
var usage = map[Purpose]struct{ secret, public []uint }{
	Encrypt: {secret: []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}},
	MAC:     {secret: []uint{pkcs11.CKA_SIGN}},
	Sign:    {secret: []uint{pkcs11.CKA_SIGN}, public: []uint{pkcs11.CKA_VERIFY}},
	Decrypt: {secret: []uint{pkcs11.CKA_DECRYPT}, public: []uint{pkcs11.CKA_ENCRYPT}},
	Agree:   {secret: []uint{pkcs11.CKA_DERIVE}},
}

// Templates are those of a key to be generated on a token: of the public key, nil
// for a secret key, and of the secret or private one, which is sensitive and cannot
// be extracted.
func (a *Algorithm) Templates(id [16]byte, label string, r Recipe) (public, private []*pkcs11.Attribute) {
	public, private = a.family.generation(a.Bits, r)
	return a.complete(id, label, r, public, private)
}

// Import is Templates for material from outside, as keyring keeps it: raw bytes of a
// secret key, PKCS#8 in DER of others. The templates hold the secret: Wipe them. The
// public key is nil for a secret key.
func (a *Algorithm) Import(id [16]byte, label string, r Recipe, material []byte) (Imported, error) {
	public, private, key, err := a.family.material(a, material)
	if err != nil {
		return Imported{}, err
	}
	if a.Pair() {
		public = append(public, class(pkcs11.CKO_PUBLIC_KEY), keyType(r))
		private = append(private, class(pkcs11.CKO_PRIVATE_KEY), keyType(r))
	} else {
		private = append(private, class(pkcs11.CKO_SECRET_KEY), keyType(r))
	}
	if r.Params != nil {
		public = append(public, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, r.Params))
		private = append(private, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, slices.Clone(r.Params)))
	}
	public, private = a.complete(id, label, r, public, private)
	return Imported{public, private, key}, nil
}

// Imported is a key from outside, as a token takes it.
type Imported struct {
	Public, Private []*pkcs11.Attribute
	Key             any // crypto.PublicKey
}

// Wipe overwrites all values.
func (i Imported) Wipe() {
	for _, attribute := range i.Private {
		clear(attribute.Value)
	}
}

func (a *Algorithm) complete(id [16]byte, label string, r Recipe, public, private []*pkcs11.Attribute) (_, _ []*pkcs11.Attribute) {
	// Each private template has its own memory, because it may be wiped.
	common := func() []*pkcs11.Attribute {
		return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, slices.Clone(id[:])), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}
	}
	uses := usage[a.Purpose]
	only := only
	if r.Implied {
		only = func(yes []uint, _ ...uint) []*pkcs11.Attribute { return with(true, yes...) }
	}
	private = slices.Concat(private, common(),
		with(true, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE),
		with(false, pkcs11.CKA_EXTRACTABLE),
		only(uses.secret, a.forbidden()...))
	if a.Pair() {
		public = slices.Concat(public, common(),
			with(true, pkcs11.CKA_TOKEN),
			with(false, pkcs11.CKA_PRIVATE),
			only(uses.public, pkcs11.CKA_ENCRYPT, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP))
	}
	return public, private
}

// forbidden are the uses that a key without them in its template might have by
// default. Modules refuse some of those that make no sense.
func (a *Algorithm) forbidden() []uint {
	if a.Pair() {
		return []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE}
	}
	return []uint{
		pkcs11.CKA_MODIFIABLE, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY,
		pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE,
	}
}

// only makes the given attributes true and the other ones false.
func only(yes []uint, all ...uint) []*pkcs11.Attribute {
	no := slices.DeleteFunc(all, func(t uint) bool { return slices.Contains(yes, t) })
	return slices.Concat(with(true, yes...), with(false, no...))
}

// with makes a template of boolean attributes that all have the same value.
func with(value bool, types ...uint) []*pkcs11.Attribute {
	var template []*pkcs11.Attribute
	for _, t := range types {
		template = append(template, pkcs11.NewAttribute(t, value))
	}
	return template
}

func class(c uint) *pkcs11.Attribute { return pkcs11.NewAttribute(pkcs11.CKA_CLASS, c) }

func keyType(r Recipe) *pkcs11.Attribute { return pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, r.KeyType) }
