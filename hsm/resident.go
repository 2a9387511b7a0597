package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// heldKey is a key in the token that was made or found, with its row of the table.
type heldKey struct {
	Key
	row    *algorithm.Algorithm
	public crypto.PublicKey // nil for a secret key
	proof  []byte           // of a secret key's value; nil for a pair (see prove)
}

const keyLabel = "keywright key "

// slowGeneration bounds the making of an RSA key, which takes seconds in software
// and a minute in a smart card.
const slowGeneration = 3 * time.Minute

// generationTimeout bounds the making of a key.
func (d *Device) generationTimeout(row *algorithm.Algorithm) time.Duration {
	if row.Recipes[0].KeyType == pkcs11.CKK_RSA {
		return max(d.config.Timeout, slowGeneration)
	}
	return d.config.Timeout
}

// GenerateKey implements Keys. The key was tried once before it is returned.
func (d *Device) GenerateKey(ctx context.Context, id KeyID, name string) (Key, error) {
	const op = "generate key"
	row, err := d.row(name)
	if err != nil {
		return Key{}, classify(op, err)
	}
	return d.makeKey(ctx, op, generator(id, row, keyLabel))
}

// ImportKey implements Keys. The token was tried with the key, and what it made
// compared with what the material makes here.
func (d *Device) ImportKey(ctx context.Context, id KeyID, name string, material []byte) (Key, error) {
	const op = "import key"
	row, err := d.row(name)
	if err != nil {
		return Key{}, classify(op, err)
	}
	if err := importable(row, material); err != nil {
		return Key{}, classify(op, err)
	}
	material = bytes.Clone(material) // the call may outlast us
	m := maker{id: id, row: row, accept: func(k heldKey) bool { return k.is(material) }}
	m.make = func(s *session, r algorithm.Recipe) error { return s.put(id, row, r, material) }
	key, err := d.makeKey(ctx, op, m)
	if err == nil {
		clear(material) // after a failure the token may still be reading it
	}
	return key, err
}

// maker is how a key is to be made.
type maker struct {
	id     KeyID
	row    *algorithm.Algorithm
	make   func(*session, algorithm.Recipe) error
	accept func(heldKey) bool // whether the key is the right one
}

func (d *Device) makeKey(ctx context.Context, op string, m maker) (Key, error) {
	recipes := d.able.recipes(m.row)
	made, err := createWithin(ctx, d, d.generationTimeout(m.row), op, func(s *session, sent *atomic.Bool) (heldKey, error) {
		return s.make(m, recipes, sent)
	})
	if err != nil {
		if inability(err) {
			err = &Error{Op: op, Class: ClassCaller, Code: uint(codeOf(err)), Err: fmt.Errorf("%w: %w", d.unable(m.row.Name), err)}
		}
		return Key{}, err
	}
	d.rememberKey(made)
	return made.Key, nil
}

// inability tells whether a token refused what it cannot do, rather than what was
// wrong about the request.
func inability(err error) bool {
	if errors.Is(err, algorithm.ErrOther) {
		return true // it made something else
	}
	switch codeOf(err) {
	case pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_CURVE_NOT_SUPPORTED,
		pkcs11.CKR_DOMAIN_PARAMS_INVALID, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_KEY_TYPE_INCONSISTENT,
		pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_TEMPLATE_INCONSISTENT,
		pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_ACTION_PROHIBITED:
		return classify("", err).Class == ClassCaller
	}
	return false
}

// make makes the key unless an earlier attempt of the same call did, and tries it.
// A key that is refused or does not work is removed.
func (s *session) make(m maker, recipes []algorithm.Recipe, sent *atomic.Bool) (heldKey, error) {
	held, err := s.retrieve(m, sent)
	if errors.Is(err, cryptoki.ErrAbsent) {
		if err = s.makeAnyhow(m, recipes, sent); err == nil {
			held, err = s.read(m.id, m.row)
		}
	}
	if err == nil {
		err = s.accept(&held, m)
	}
	if errors.Is(err, ErrDuplicateObject) {
		return held, err // whose the others are, nobody can tell
	}
	if err != nil && sent.Load() && classify("", err).Class == ClassCaller {
		if _, failure := s.Destroy(m.id); failure == nil {
			sent.Store(false)
		}
	}
	return held, err
}

// retrieve returns what an earlier attempt made. Nothing else may have the id.
func (s *session) retrieve(m maker, sent *atomic.Bool) (heldKey, error) {
	present, err := s.Present(m.id)
	switch {
	case err != nil:
		return heldKey{}, err
	case !present:
		return heldKey{}, cryptoki.ErrAbsent
	case !sent.Load():
		return heldKey{}, fmt.Errorf("%w: %s is taken", ErrDuplicateObject, m.id)
	}
	held, err := s.read(m.id, m.row)
	if errors.Is(err, cryptoki.ErrAbsent) { // half a pair
		if _, failure := s.Destroy(m.id); failure != nil {
			err = failure
		}
	}
	return held, err
}

// generator makes a key in the token. The label is completed by the id, because some
// tokens take two keys of one label for the same.
func generator(id KeyID, row *algorithm.Algorithm, label string) maker {
	return maker{
		id: id, row: row,
		make: func(s *session, r algorithm.Recipe) error {
			public, private := row.Templates(id, label+id.String(), r)
			if row.Pair() {
				return s.GeneratePair(id, r.Generate, public, private)
			}
			_, err := s.Generate(row.Object(id), r.Generate, private)
			return err
		},
		accept: func(heldKey) bool { return true },
	}
}

// makeAnyhow tries each recipe until the token takes one.
func (s *session) makeAnyhow(m maker, recipes []algorithm.Recipe, sent *atomic.Bool) (err error) {
	for _, r := range recipes {
		sent.Store(true)
		err = m.make(s, r)
		if err == nil || !refused(err) {
			return err
		}
		sent.Store(false)
	}
	return err
}

// accept tries a new key.
func (s *session) accept(held *heldKey, m maker) (err error) {
	held.proof, err = s.prove(*held)
	if err == nil && !m.accept(*held) {
		err = fault(ClassDevice, errors.New("token holds another key than the one it was given"))
	}
	return err
}

// put puts material into the token, the private key first.
func (s *session) put(id KeyID, row *algorithm.Algorithm, r algorithm.Recipe, material []byte) error {
	imported, err := row.Import(id, keyLabel+id.String(), r, material)
	if err != nil {
		return err
	}
	defer imported.Wipe()
	private, err := s.Create(imported.Private)
	if err != nil {
		return err
	}
	s.Remember(row.Object(id), private)
	if !row.Pair() {
		return nil
	}
	public, err := s.Create(imported.Public)
	if err != nil {
		_, failure := s.Destroy(id)
		return errors.Join(err, failure)
	}
	s.Remember(row.PublicObject(id), public)
	return nil
}

// importable tells whether material is a key of an algorithm: ErrInvalidArgument.
func importable(row *algorithm.Algorithm, material []byte) error {
	imported, err := row.Import(KeyID{}, "", row.Recipes[0], material)
	if err != nil {
		return fmt.Errorf("%w: material: %w", ErrInvalidArgument, err)
	}
	imported.Wipe()
	return nil
}

// is tells whether a key that was proved is the one of some material.
func (k heldKey) is(material []byte) bool {
	if !k.row.Pair() {
		return k.provenBy(material)
	}
	imported, err := k.row.Import(KeyID{}, "", k.row.Recipes[0], material)
	if err != nil {
		return false
	}
	defer imported.Wipe()
	der, err := x509.MarshalPKIXPublicKey(imported.Key)
	return err == nil && bytes.Equal(der, k.PublicKey)
}

// read reads a key: cryptoki.ErrAbsent, algorithm.ErrOther, ErrDuplicateObject,
// ErrUnprotected.
func (s *session) read(id KeyID, row *algorithm.Algorithm) (heldKey, error) {
	key, err := s.Find(row.Object(id))
	if err != nil {
		return heldKey{}, err
	}
	if err := s.Protected(key); err != nil {
		return heldKey{}, err
	}
	public, err := s.Find(row.PublicObject(id))
	if err != nil {
		return heldKey{}, err
	}
	values, err := s.Attributes(public, row.Attributes()...)
	if codeOf(err) == pkcs11.CKR_ATTRIBUTE_TYPE_INVALID {
		err = fmt.Errorf("%w: %w", algorithm.ErrOther, err)
	}
	if err != nil {
		return heldKey{}, err
	}
	held := heldKey{Key: Key{ID: id, Algorithm: row.Name}, row: row}
	if err := held.understand(values); err != nil {
		return heldKey{}, err
	}
	held.Origin, err = s.origin(key)
	return held, err
}

func (k *heldKey) understand(values [][]byte) (err error) {
	k.public, err = k.row.Read(values)
	if err == nil && k.public != nil {
		k.PublicKey, err = x509.MarshalPKIXPublicKey(k.public)
	}
	if err != nil && !errors.Is(err, algorithm.ErrOther) {
		return fault(ClassDevice, fmt.Errorf("public key of %s: %w", k.ID, err))
	}
	return err
}

func (s *session) origin(key cryptoki.Handle) (o Origin, err error) {
	for attribute, said := range map[uint]*bool{
		pkcs11.CKA_LOCAL:             &o.Local,
		pkcs11.CKA_NEVER_EXTRACTABLE: &o.NeverExtractable,
		pkcs11.CKA_ALWAYS_SENSITIVE:  &o.AlwaysSensitive,
	} {
		if *said, err = s.True(key, attribute); err != nil {
			return Origin{}, err
		}
	}
	return o, nil
}

// FindKey implements Keys.
func (d *Device) FindKey(ctx context.Context, id KeyID, name string) (Key, error) {
	const op = "find key"
	row, err := d.row(name)
	if err != nil {
		return Key{}, classify(op, err)
	}
	found, err := call(ctx, d, op, func(s *session) (heldKey, error) {
		held, err := s.read(id, row)
		if err != nil {
			return heldKey{}, d.notFound(s, id, err)
		}
		if !row.Pair() {
			held.proof, err = s.prove(held)
		}
		return held, err
	})
	if err != nil {
		return Key{}, err
	}
	d.rememberKey(found)
	return found.Key, nil
}

// notFound is the error for a key that the token has not. A sick token finds
// nothing either, so it is believed only if it holds its root.
func (d *Device) notFound(s *session, id KeyID, err error) error {
	if errors.Is(err, algorithm.ErrOther) {
		return fmt.Errorf("%w: %s: %w", ErrKeyNotFound, id, err)
	}
	if !errors.Is(err, cryptoki.ErrAbsent) {
		return err
	}
	if sick := d.assure(s); sick != nil {
		return sick
	}
	return fmt.Errorf("%w: %s", ErrKeyNotFound, id)
}

// assure makes sure that the token is the one remembered, by one of its roots other
// than those named, or at least that it is logged in.
func (d *Device) assure(s *session, but ...KeyID) error {
	for id, root := range d.knownRoots() { // in random order
		if slices.Contains(but, id) {
			continue
		}
		if err := d.check(s, root); err != nil {
			return sick(err)
		}
		break
	}
	return s.LoggedIn()
}

func (d *Device) rememberKey(key heldKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys[key.ID] = key
}

func (d *Device) knownKey(id KeyID, name string) (heldKey, error) {
	d.mu.RLock()
	key, ok := d.keys[id]
	d.mu.RUnlock()
	if !ok || key.Algorithm != name {
		return heldKey{}, fmt.Errorf("%w: %s of %s was neither made nor found on this token", ErrKeyNotFound, id, name)
	}
	return key, nil
}
