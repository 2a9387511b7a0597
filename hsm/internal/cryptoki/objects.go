package cryptoki

import (
	"bytes"
	"fmt"
	"math"

	"github.com/miekg/pkcs11"
)

// Handle is an object's number in one generation of the module. It names another
// object, or none, in the next.
type Handle = pkcs11.ObjectHandle

// Object names an object of a token for good.
type Object struct {
	ID    [16]byte // CKA_ID
	Class uint     // CKO_*
}

// Find returns the handle of the one object of that name, from the cache or the
// token: ErrAbsent, ErrDuplicateObject.
func (s *Session) Find(o Object) (Handle, error) {
	if handle, ok := s.handleOf(o); ok {
		return handle, nil
	}
	handles, err := s.Search(2, classAttribute(o.Class), pkcs11.NewAttribute(pkcs11.CKA_ID, o.ID[:]))
	if err != nil {
		return 0, err
	}
	switch len(handles) {
	case 0:
		if err := s.LoggedIn(); err != nil {
			return 0, err
		}
		return 0, ErrAbsent
	case 1:
		s.Remember(o, handles[0])
		return handles[0], nil
	}
	return 0, fmt.Errorf("%w: %x", ErrDuplicateObject, o.ID)
}

// Known returns the handle of an object that was found on this connection before.
func (s *Session) Known(o Object) (Handle, bool) { return s.handleOf(o) }

// Present tells whether there is any object of that id, of whatever class.
func (s *Session) Present(id [16]byte) (bool, error) {
	found, err := s.Search(1, pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]))
	return len(found) > 0, err
}

// OfClass returns the handles of all objects of a class.
func (s *Session) OfClass(class uint) ([]Handle, error) {
	return s.Search(math.MaxInt, classAttribute(class))
}

// LoggedIn returns CKR_USER_NOT_LOGGED_IN if the session is no longer logged in: a
// search finds nothing then, without an error.
func (s *Session) LoggedIn() error {
	info, err := s.module.p11.GetSessionInfo(s.handle)
	if err != nil {
		return err
	}
	if info.State != pkcs11.CKS_RW_USER_FUNCTIONS && info.State != pkcs11.CKS_RO_USER_FUNCTIONS {
		return pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
	}
	return nil
}

// Search returns the handles of at most limit objects.
func (s *Session) Search(limit int, template ...*pkcs11.Attribute) (found []Handle, err error) {
	defer s.module.changes.search()()
	p11 := s.module.p11
	if err := p11.FindObjectsInit(s.handle, template); err != nil {
		return nil, err
	}
	defer func() {
		if final := p11.FindObjectsFinal(s.handle); err == nil {
			err = final
		}
	}()
	const batch = 1024
	for len(found) < limit {
		handles, _, err := p11.FindObjects(s.handle, min(batch, limit-len(found)))
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

// Destroy removes every object of that id, and tells how many there were.
func (s *Session) Destroy(id [16]byte) (removed int, err error) {
	const batch = 16
	for {
		handles, err := s.Search(batch, pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]))
		if err != nil {
			return removed, err
		}
		if len(handles) == 0 {
			break
		}
		for _, handle := range handles {
			if err := s.Discard(handle); err != nil {
				return removed, err
			}
			removed++
		}
	}
	s.Forget()
	return removed, s.LoggedIn()
}

// Protected makes sure that the token itself says that the key cannot leave it:
// ErrUnprotected.
func (s *Session) Protected(key Handle) error {
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
