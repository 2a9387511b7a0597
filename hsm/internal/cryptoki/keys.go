package cryptoki

import (
	"slices"

	"github.com/miekg/pkcs11"
)

// GenerateAES makes an AES key of size bytes that can encrypt and decrypt only, is
// sensitive and cannot be extracted. It is a secret key object under that id.
func (s *Session) GenerateAES(id [16]byte, label string, size int) (Handle, error) {
	key, err := s.module.p11.GenerateKey(s.handle, mechanism(pkcs11.CKM_AES_KEY_GEN), aesTemplate(id, label, size))
	if err != nil {
		return 0, err
	}
	s.Remember(Object{id, pkcs11.CKO_SECRET_KEY}, key)
	return key, nil
}

func aesTemplate(id [16]byte, label string, size int) []*pkcs11.Attribute {
	return slices.Concat(
		[]*pkcs11.Attribute{
			classAttribute(pkcs11.CKO_SECRET_KEY),
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, size),
			pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		},
		with(true, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT),
		with(false, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_MODIFIABLE, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP,
			pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_DERIVE),
	)
}

// GeneratePair makes a key pair on the curve that params name (CKA_EC_PARAMS, DER)
// with a mechanism (CKM_*). The private key can sign only, is sensitive and cannot
// be extracted.
func (s *Session) GeneratePair(id [16]byte, label string, generate uint, params []byte) error {
	public, private := pairTemplates(id, label, params)
	_, _, err := s.module.p11.GenerateKeyPair(s.handle, mechanism(generate), public, private)
	return err
}

func pairTemplates(id [16]byte, label string, params []byte) (public, private []*pkcs11.Attribute) {
	common := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	}
	public = slices.Concat(common,
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params)},
		with(true, pkcs11.CKA_TOKEN, pkcs11.CKA_VERIFY),
		with(false, pkcs11.CKA_PRIVATE))
	private = slices.Concat(common,
		with(true, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_SIGN),
		with(false, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE))
	return public, private
}

// PublicKey reads CKA_EC_PARAMS and CKA_EC_POINT of a public key, as the token
// encodes them.
func (s *Session) PublicKey(key Handle) (params, point []byte, err error) {
	attributes, err := s.module.p11.GetAttributeValue(s.handle, key, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil),
	})
	if err != nil {
		return nil, nil, err
	}
	return attributes[0].Value, attributes[1].Value, nil
}

// Sign signs with a mechanism (CKM_*) and returns what the token returns.
func (s *Session) Sign(key Handle, sign uint, data []byte) ([]byte, error) {
	if err := s.module.p11.SignInit(s.handle, mechanism(sign), key); err != nil {
		return nil, err
	}
	return s.module.p11.Sign(s.handle, data)
}

// Random returns what the token's random number generator returns for n bytes.
func (s *Session) Random(n int) ([]byte, error) {
	return s.module.p11.GenerateRandom(s.handle, n)
}

func mechanism(number uint) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(number, nil)}
}

func classAttribute(class uint) *pkcs11.Attribute {
	return pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)
}

// with makes a template of boolean attributes that all have the same value.
func with(value bool, types ...uint) []*pkcs11.Attribute {
	var template []*pkcs11.Attribute
	for _, t := range types {
		template = append(template, pkcs11.NewAttribute(t, value))
	}
	return template
}
