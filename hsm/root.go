package hsm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// The check value is the tag of this one message. Its IV is reserved for it: a
// random IV meets it with a chance of 2^-96, and the message never varies, so that
// no IV is used for two messages. Its AAD begins otherwise than any blob's.
var (
	checkLabel = []byte("keywright root key check value 1")
	checkIV    = func() []byte { sum := sha256.Sum256(checkLabel); return sum[:ivSize] }()
)

// rootAlgorithm is what a root key is used with.
var rootAlgorithm, _ = algorithm.Lookup(algorithm.AES256GCM)

// rootLabel is the CKA_LABEL of a root key.
func rootLabel(id KeyID) string { return "keywright root " + id.String() }

func rootObject(id KeyID) cryptoki.Object {
	return cryptoki.Object{ID: id, Class: pkcs11.CKO_SECRET_KEY}
}

// GenerateRoot implements Service.
func (d *Device) GenerateRoot(ctx context.Context) (Root, error) {
	return d.GenerateRootAs(ctx, newKeyID())
}

// GenerateRootAs implements Service.
func (d *Device) GenerateRootAs(ctx context.Context, id KeyID) (Root, error) {
	if !d.capabilities.RootWrap {
		return Root{}, classify("generate root", ErrNoWrapMechanism)
	}
	root, err := d.generateFirst(ctx, id)
	if err != nil {
		return Root{ID: id}, err
	}
	d.rememberRoot(root)
	return root, nil
}

// create runs fn, which makes an object under an id of its own choice, and sets
// sent when it asks the token to. A failure after that leaves the outcome unknown.
func create[T any](ctx context.Context, d *Device, op string, fn func(*session, *atomic.Bool) (T, error)) (T, error) {
	return createWithin(ctx, d, d.config.Timeout, op, fn)
}

// createWithin is create with a timeout of its own.
func createWithin[T any](ctx context.Context, d *Device, timeout time.Duration, op string, fn func(*session, *atomic.Bool) (T, error)) (T, error) {
	var sent atomic.Bool
	made, err := callWithin(ctx, d, timeout, op, func(s *session) (T, error) { return fn(s, &sent) })
	if err != nil && sent.Load() {
		cause := classify(op, err)
		err = &Error{Op: op, Class: ClassUnknown, Code: cause.Code, Err: cause}
	}
	return made, err
}

// refused tells whether the token answered a request to make something with a
// refusal, because of the request, for want of memory or of a login: that is an
// outcome.
func refused(err error) bool {
	class := classify("", err).Class
	return err != nil && (class == ClassCaller || class == ClassExhausted || class == ClassLogin)
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
	_, template := rootAlgorithm.Templates(id, rootLabel(id), rootAlgorithm.Recipes[0])
	key, err := s.Generate(rootObject(id), rootAlgorithm.Recipes[0].Generate, template)
	if refused(err) {
		sent.Store(false)
	}
	return key, err
}

// FindRoot implements Service.
func (d *Device) FindRoot(ctx context.Context, id KeyID, checkValue []byte) (Root, error) {
	if _, err := d.kindOf(checkValue); err != nil {
		return Root{}, classify("find root", err)
	}
	want := Root{ID: id, CheckValue: bytes.Clone(checkValue)}
	_, known := d.knownRoot(id)
	root, err := call(ctx, d, "find root", func(s *session) (Root, error) {
		err := d.check(s, want)
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

// check makes sure that the token holds that root, of whatever kind.
func (d *Device) check(s *session, want Root) error {
	kind, err := d.kindOf(want.CheckValue)
	switch {
	case err != nil:
		return err
	case kind != nil:
		return s.checkKind(kind, want)
	}
	return s.check(want)
}

// check makes sure that the token holds that root, an AES-GCM key: ErrRootNotFound, ErrWrongRoot,
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
	label, err := s.Decrypt(key, cryptoki.GCM(checkIV, checkLabel), ciphertext, len(ciphertext))
	if err == nil && !bytes.Equal(label, checkLabel) {
		err = fault(ClassDevice, errors.New("canary came back changed"))
	}
	return err
}

// checkValue returns the tag of the fixed message, and the ciphertext with it.
func (s *session) checkValue(key cryptoki.Handle) (tag, ciphertext []byte, err error) {
	ciphertext, err = s.Encrypt(key, cryptoki.GCM(checkIV, checkLabel), checkLabel, len(checkLabel)+tagSize)
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
	known, ok := d.knownRoot(root)
	if !ok {
		return nil, classify("wrap", unknownRoot(root))
	}
	kind, err := d.kindOf(known.CheckValue)
	if err != nil {
		return nil, classify("wrap", err)
	}
	secret, aad := bytes.Clone(plaintext), bytes.Clone(aad) // the call may outlast us
	wrapped, err := call(ctx, d, "wrap", func(s *session) ([]byte, error) {
		blob := BlobInfo{Mechanism: mechanismOf(kind), Root: root, RootVersion: version}
		err := s.wrapAny(kind, &blob, secret, aad)
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

// wrapAny fills in a blob by the kind of its root, and makes sure that it opens.
func (s *session) wrapAny(kind rootKind, blob *BlobInfo, plaintext, aad []byte) error {
	if kind == nil {
		return s.wrap(blob, plaintext, blob.authenticated(aad))
	}
	if err := kind.wrap(s, blob, plaintext, aad); err != nil {
		return err
	}
	opened, err := kind.unwrap(s, *blob, aad)
	if err == nil && subtle.ConstantTimeCompare(opened, plaintext) != 1 {
		err = errors.New("opened to something else")
	}
	clear(opened)
	if err != nil {
		return fault(ClassDevice, fmt.Errorf("wrapped secret did not open again: %w", err))
	}
	return nil
}

// wrap fills in the IV and the ciphertext, and makes sure that it opens.
func (s *session) wrap(blob *BlobInfo, plaintext, aad []byte) error {
	key, err := s.rootKey(blob.Root)
	if err != nil {
		return err
	}
	blob.IV = make([]byte, ivSize)
	blob.Ciphertext, err = s.seal(make([]byte, len(plaintext)+tagSize), key, blob.IV, plaintext, aad)
	if err != nil {
		return err
	}
	opened, err := s.Decrypt(key, cryptoki.GCM(blob.IV, aad), blob.Ciphertext, len(blob.Ciphertext))
	if err != nil {
		return err
	}
	defer clear(opened)
	if subtle.ConstantTimeCompare(opened, plaintext) != 1 {
		return fault(ClassDevice, errors.New("wrapped secret did not open again"))
	}
	return nil
}

// rootKey returns the handle of a known root. That it is gone, or no longer the only
// one of its id, is the token's fault, not the caller's.
func (s *session) rootKey(id KeyID) (cryptoki.Handle, error) {
	key, err := s.Find(rootObject(id))
	if errors.Is(err, cryptoki.ErrAbsent) {
		return 0, fault(ClassDevice, fmt.Errorf("%w: %s", ErrRootNotFound, id))
	}
	if errors.Is(err, ErrDuplicateObject) {
		return 0, fault(ClassDevice, err)
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
	kind, err := d.kindOf(root.CheckValue)
	if err != nil || mechanismOf(kind) != info.Mechanism {
		return nil, classify("unwrap", ErrUnwrap)
	}
	aad = bytes.Clone(aad)
	return call(ctx, d, "unwrap", func(s *session) ([]byte, error) {
		unwrap := func() ([]byte, error) {
			if kind == nil {
				return s.unwrap(info, info.authenticated(aad))
			}
			return kind.unwrap(s, info, aad)
		}
		plaintext, err := unwrap()
		if !ambiguous(err) {
			return plaintext, err
		}
		return s.diagnose(func() error { return d.check(s, root) }, ErrUnwrap, err, unwrap)
	})
}

func (s *session) unwrap(blob BlobInfo, aad []byte) ([]byte, error) {
	key, err := s.rootKey(blob.Root)
	if err != nil {
		return nil, err
	}
	plaintext, err := s.Decrypt(key, cryptoki.GCM(blob.IV, aad), blob.Ciphertext, len(blob.Ciphertext))
	if err == nil && len(plaintext) != len(blob.Ciphertext)-tagSize {
		return nil, fault(ClassDevice, errors.New("AES-GCM in the token returned a plaintext of wrong size"))
	}
	return plaintext, err
}

// ambiguous tells whether a failed decryption may be due to the blob or to the
// device: some modules report both with the same code. What was found out here is
// not.
func ambiguous(err error) bool {
	var ours *Error
	if err == nil || errors.As(err, &ours) {
		return false
	}
	class := classify("", err).Class
	return class == ClassCaller || class == ClassDevice
}

// diagnose tells bad input from a sick device, with a canary, on a fresh session.
// Then it decrypts again: an error of a moment is no reason to call the input bad.
func (s *session) diagnose(canary func() error, bad, failure error, decrypt func() ([]byte, error)) ([]byte, error) {
	err := s.Renew()
	if err == nil {
		err = canary()
	}
	if err != nil {
		return nil, sick(errors.Join(err, failure))
	}
	plaintext, err := decrypt()
	if ambiguous(err) {
		err = bad
	}
	return plaintext, err
}
