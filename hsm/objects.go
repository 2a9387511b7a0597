package hsm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// errAbsent means that the token, logged in, has no such object.
var errAbsent = errors.New("no such object on the token")

func newKeyID() KeyID {
	var id KeyID
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// find returns the handle of the one object of that name, from the cache or the
// token: errAbsent, ErrDuplicateObject.
func (s *session) find(o object) (pkcs11.ObjectHandle, error) {
	if handle, ok := s.handleOf(o); ok {
		return handle, nil
	}
	handles, err := s.search(2, classAttribute(o.class), pkcs11.NewAttribute(pkcs11.CKA_ID, o.id[:]))
	if err != nil {
		return 0, err
	}
	switch len(handles) {
	case 0:
		return 0, s.absent()
	case 1:
		s.remember(o, handles[0])
		return handles[0], nil
	}
	return 0, fmt.Errorf("%w: %s", ErrDuplicateObject, o.id)
}

// absent tells an object that is not there from one that cannot be seen, because
// the session is no longer logged in: that finds nothing either, without an error.
func (s *session) absent() error {
	info, err := s.module.p11.GetSessionInfo(s.handle)
	if err != nil {
		return err
	}
	if info.State != pkcs11.CKS_RW_USER_FUNCTIONS && info.State != pkcs11.CKS_RO_USER_FUNCTIONS {
		return pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
	}
	return errAbsent
}

// search returns the handles of at most limit objects.
func (s *session) search(limit int, template ...*pkcs11.Attribute) (found []pkcs11.ObjectHandle, err error) {
	p11 := s.module.p11
	if err := p11.FindObjectsInit(s.handle, template); err != nil {
		return nil, err
	}
	defer func() {
		if final := p11.FindObjectsFinal(s.handle); err == nil {
			err = final
		}
	}()
	for len(found) < limit {
		handles, _, err := p11.FindObjects(s.handle, limit-len(found))
		if err != nil {
			return nil, err
		}
		if len(handles) == 0 {
			break
		}
		found = append(found, handles...)
	}
	return found, nil
}

// destroy removes every object of that id.
func (s *session) destroy(id KeyID) error {
	const batch = 16
	for {
		handles, err := s.search(batch, pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]))
		if err != nil {
			return err
		}
		if len(handles) == 0 {
			break
		}
		for _, handle := range handles {
			if err := s.module.p11.DestroyObject(s.handle, handle); err != nil {
				return err
			}
		}
	}
	s.forget()
	if err := s.absent(); !errors.Is(err, errAbsent) {
		return err
	}
	return nil
}

// protected makes sure that the token itself says that the key cannot leave it.
func (s *session) protected(key pkcs11.ObjectHandle) error {
	attributes, err := s.module.p11.GetAttributeValue(s.handle, key, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil),
	})
	if err != nil {
		return err
	}
	for _, a := range attributes {
		want := []byte{0}
		if a.Type == pkcs11.CKA_SENSITIVE {
			want = []byte{1}
		}
		if !bytes.Equal(a.Value, want) {
			return ErrUnprotected
		}
	}
	return nil
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
