package cryptoki

import (
	"github.com/miekg/pkcs11"
)

// Generate makes a secret key of a template by a mechanism (CKM_*), as the object
// of that name.
func (s *Session) Generate(o Object, generate uint, template []*pkcs11.Attribute) (Handle, error) {
	key, err := s.Make(generate, template)
	if err != nil {
		return 0, err
	}
	s.Remember(o, key)
	return key, nil
}

// GeneratePair makes a key pair of two templates, with one id, by a mechanism (CKM_*).
func (s *Session) GeneratePair(id [16]byte, generate uint, publicTemplate, privateTemplate []*pkcs11.Attribute) error {
	public, private, err := s.MakePair(generate, publicTemplate, privateTemplate)
	if err != nil {
		return err
	}
	s.Remember(Object{id, pkcs11.CKO_PUBLIC_KEY}, public)
	s.Remember(Object{id, pkcs11.CKO_PRIVATE_KEY}, private)
	return nil
}

// Attributes reads attributes of an object (CKA_*), in the order asked for.
func (s *Session) Attributes(object Handle, types ...uint) ([][]byte, error) {
	var template []*pkcs11.Attribute
	for _, t := range types {
		template = append(template, pkcs11.NewAttribute(t, nil))
	}
	attributes, err := s.module.p11.GetAttributeValue(s.handle, object, template)
	if err != nil {
		return nil, err
	}
	var values [][]byte
	for _, a := range attributes {
		values = append(values, a.Value)
	}
	return values, nil
}

// True tells whether a boolean attribute is there and true.
func (s *Session) True(object Handle, attribute uint) (bool, error) {
	values, err := s.Attributes(object, attribute)
	if isCode(err, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID) {
		return false, nil // the token knows no such attribute
	}
	return err == nil && len(values[0]) == 1 && values[0][0] != 0, err
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
