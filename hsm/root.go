package hsm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// The check value is the tag of this one message. Its IV is reserved for it: a
// random IV meets it with a chance of 2^-96, and the message never varies, so that
// no IV is used for two messages. Its AAD begins otherwise than any blob's.
var (
	checkLabel = []byte("keywright root key check value 1")
	checkIV    = func() []byte { sum := sha256.Sum256(checkLabel); return sum[:ivSize] }()
)

const rootKeySize = 32

func rootObject(id KeyID) cryptoki.Object {
	return cryptoki.Object{ID: id, Class: pkcs11.CKO_SECRET_KEY}
}

// GenerateRoot implements Service. The id is chosen before the key is made, so that
// a key whose making was never confirmed is found again.
func (d *Device) GenerateRoot(ctx context.Context) (Root, error) {
	if !d.capabilities.RootWrap {
		return Root{}, classify("generate root", ErrNoWrapMechanism)
	}
	id := newKeyID()
	root, err := create(ctx, d, "generate root", func(s *session, sent *atomic.Bool) (Root, error) {
		return s.generateRoot(id, sent)
	})
	if err != nil {
		return Root{ID: id}, err
	}
	d.rememberRoot(root)
	return root, nil
}

// create runs fn, which makes an object under an id of its own choice, and sets
// sent when it asks the token to. A failure after that leaves the outcome unknown.
func create[T any](ctx context.Context, d *Device, op string, fn func(*session, *atomic.Bool) (T, error)) (T, error) {
	var sent atomic.Bool
	made, err := call(ctx, d, op, func(s *session) (T, error) { return fn(s, &sent) })
	if err != nil && sent.Load() {
		cause := classify(op, err)
		err = &Error{Op: op, Class: ClassUnknown, Code: cause.Code, Err: cause}
	}
	return made, err
}

// generateRoot makes the key unless an earlier attempt of the same call did.
func (s *session) generateRoot(id KeyID, sent *atomic.Bool) (Root, error) {
	key, err := s.Find(rootObject(id))
	if errors.Is(err, cryptoki.ErrAbsent) {
		key, err = s.makeRoot(id, sent)
	} else if err == nil && !sent.Load() {
		err = fmt.Errorf("%w: %s", ErrDuplicateObject, id)
	}
	if err != nil {
		return Root{}, err
	}
	if err := s.Protected(key); err != nil {
		return Root{}, err
	}
	checkValue, _, err := s.checkValue(key)
	return Root{ID: id, CheckValue: checkValue}, err
}

func (s *session) makeRoot(id KeyID, sent *atomic.Bool) (cryptoki.Handle, error) {
	sent.Store(true)
	key, err := s.GenerateAES(id, "keywright root "+id.String(), rootKeySize)
	if err != nil && classify("", err).Class == ClassCaller {
		sent.Store(false) // a refusal is an outcome
	}
	return key, err
}

// FindRoot implements Service.
func (d *Device) FindRoot(ctx context.Context, id KeyID, checkValue []byte) (Root, error) {
	if len(checkValue) != tagSize {
		return Root{}, classify("find root", fmt.Errorf("%w: check value of %d bytes, want %d", ErrInvalidArgument, len(checkValue), tagSize))
	}
	want := Root{ID: id, CheckValue: bytes.Clone(checkValue)}
	_, known := d.knownRoot(id)
	root, err := call(ctx, d, "find root", func(s *session) (Root, error) {
		err := s.check(want)
		if known && errors.Is(err, ErrRootNotFound) {
			err = fault(ClassDevice, err)
		}
		return want, err
	})
	if err != nil {
		return Root{}, err
	}
	d.rememberRoot(root)
	return root, nil
}

// check makes sure that the token holds that root: ErrRootNotFound, ErrWrongRoot,
// ErrUnprotected, ErrDuplicateObject. It decrypts too, and so serves as the canary
// that tells a sick token from a bad request, without spending an IV.
func (s *session) check(want Root) error {
	key, err := s.Find(rootObject(want.ID))
	if errors.Is(err, cryptoki.ErrAbsent) {
		return fmt.Errorf("%w: %s", ErrRootNotFound, want.ID)
	}
	if err != nil {
		return err
	}
	if err := s.Protected(key); err != nil {
		return err
	}
	got, ciphertext, err := s.checkValue(key)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(got, want.CheckValue) != 1 {
		return fmt.Errorf("%w: %s", ErrWrongRoot, want.ID)
	}
	label, err := s.Decrypt(key, checkIV, ciphertext, checkLabel)
	if err == nil && !bytes.Equal(label, checkLabel) {
		err = fault(ClassDevice, errors.New("canary came back changed"))
	}
	return err
}

// checkValue returns the tag of the fixed message, and the ciphertext with it.
func (s *session) checkValue(key cryptoki.Handle) (tag, ciphertext []byte, err error) {
	ciphertext, err = s.Encrypt(key, checkIV, checkLabel, checkLabel)
	if err != nil {
		return nil, nil, err
	}
	if len(ciphertext) != len(checkLabel)+tagSize {
		return nil, nil, fault(ClassDevice, fmt.Errorf("AES-GCM in the token returned %d bytes, want %d", len(ciphertext), len(checkLabel)+tagSize))
	}
	return ciphertext[len(checkLabel):], ciphertext, nil
}

// Wrap implements Service. The blob was opened again before it is returned: what it
// protects may exist nowhere else.
func (d *Device) Wrap(ctx context.Context, root KeyID, version uint32, plaintext, aad []byte) ([]byte, error) {
	if err := wrappable(plaintext, aad); err != nil {
		return nil, classify("wrap", err)
	}
	if _, ok := d.knownRoot(root); !ok {
		return nil, classify("wrap", unknownRoot(root))
	}
	blob := BlobInfo{Mechanism: MechanismAESGCM, Root: root, RootVersion: version}
	secret, aad := bytes.Clone(plaintext), blob.authenticated(aad) // the call may outlast us
	wrapped, err := call(ctx, d, "wrap", func(s *session) ([]byte, error) {
		blob := blob
		blob.IV = make([]byte, ivSize)
		_, _ = rand.Read(blob.IV) // never fails
		err := s.wrap(&blob, secret, aad)
		if err != nil {
			return nil, err
		}
		return blob.bytes(), nil
	})
	if err == nil {
		clear(secret) // after a failure the token may still be reading it
	}
	return wrapped, err
}

func wrappable(plaintext, aad []byte) error {
	if len(plaintext) == 0 || len(plaintext) > MaxPlaintext {
		return fmt.Errorf("%w: plaintext of %d bytes, want 1 to %d", ErrInvalidArgument, len(plaintext), MaxPlaintext)
	}
	if len(aad) > MaxAAD {
		return fmt.Errorf("%w: AAD of %d bytes, want at most %d", ErrInvalidArgument, len(aad), MaxAAD)
	}
	return nil
}

func unknownRoot(id KeyID) error {
	return fmt.Errorf("%w: %s was neither generated nor found on this token", ErrRootNotFound, id)
}

// wrap fills in the ciphertext, and makes sure that it opens.
func (s *session) wrap(blob *BlobInfo, plaintext, aad []byte) error {
	key, err := s.rootKey(blob.Root)
	if err != nil {
		return err
	}
	blob.Ciphertext, err = s.Encrypt(key, blob.IV, plaintext, aad)
	if err != nil {
		return err
	}
	opened, err := s.Decrypt(key, blob.IV, blob.Ciphertext, aad)
	if err != nil {
		return err
	}
	defer clear(opened)
	if len(blob.Ciphertext) != len(plaintext)+tagSize || subtle.ConstantTimeCompare(opened, plaintext) != 1 {
		return fault(ClassDevice, errors.New("wrapped secret did not open again"))
	}
	return nil
}

// rootKey returns the handle of a known root. That it is gone is the token's fault,
// not the caller's.
func (s *session) rootKey(id KeyID) (cryptoki.Handle, error) {
	key, err := s.Find(rootObject(id))
	if errors.Is(err, cryptoki.ErrAbsent) {
		return 0, fault(ClassDevice, fmt.Errorf("%w: %s", ErrRootNotFound, id))
	}
	return key, err
}

// Unwrap implements Service.
func (d *Device) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	info, err := ParseBlob(blob)
	if err != nil {
		return nil, classify("unwrap", err)
	}
	if len(aad) > MaxAAD {
		return nil, classify("unwrap", ErrUnwrap)
	}
	root, ok := d.knownRoot(info.Root)
	if !ok {
		return nil, classify("unwrap", unknownRoot(info.Root))
	}
	aad = info.authenticated(aad)
	return call(ctx, d, "unwrap", func(s *session) ([]byte, error) {
		return s.unwrap(root, info, aad)
	})
}

func (s *session) unwrap(root Root, blob BlobInfo, aad []byte) ([]byte, error) {
	key, err := s.rootKey(root.ID)
	if err != nil {
		return nil, err
	}
	plaintext, err := s.Decrypt(key, blob.IV, blob.Ciphertext, aad)
	if err == nil && len(plaintext) != len(blob.Ciphertext)-tagSize {
		return nil, fault(ClassDevice, errors.New("AES-GCM in the token returned a plaintext of wrong size"))
	}
	if err != nil {
		return nil, s.diagnose(root, err)
	}
	return plaintext, nil
}

// diagnose tells a bad blob from a sick device, which some modules report with the
// same code: with the canary, on a fresh session.
func (s *session) diagnose(root Root, failure error) error {
	if class := classify("", failure).Class; class != ClassCaller && class != ClassDevice {
		return failure
	}
	err := s.Renew()
	if err == nil {
		err = s.check(root)
	}
	if err != nil {
		return fault(ClassDevice, errors.Join(failure, err))
	}
	return ErrUnwrap
}
