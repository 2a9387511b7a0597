package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
	"github.com/keywright/keywright/hsm/internal/signature"
)

// Names of signature algorithms, as in Signer.
const (
	Ed25519   = signature.Ed25519
	ECDSAP256 = signature.ECDSAP256
)

func privateObject(id KeyID) cryptoki.Object {
	return cryptoki.Object{ID: id, Class: pkcs11.CKO_PRIVATE_KEY}
}

func publicObject(id KeyID) cryptoki.Object {
	return cryptoki.Object{ID: id, Class: pkcs11.CKO_PUBLIC_KEY}
}

// keyPair is a Signer with its row of the table.
type keyPair struct {
	Signer
	algorithm *signature.Algorithm
}

// capabilities tells what the token's list of mechanisms is good for.
func capabilities(mechanisms []uint, err error) (Capabilities, error) {
	if err != nil {
		return Capabilities{}, err
	}
	has := func(mechanism uint) bool { return slices.Contains(mechanisms, mechanism) }
	c := Capabilities{RootWrap: has(pkcs11.CKM_AES_KEY_GEN) && has(pkcs11.CKM_AES_GCM)}
	for _, row := range signature.Algorithms() {
		if has(row.Generate) && has(row.Sign) {
			c.Signing = append(c.Signing, row.Name)
		}
	}
	return c, nil
}

// GenerateSigner implements Service. What the token lists but cannot do is passed
// over.
func (d *Device) GenerateSigner(ctx context.Context) (Signer, error) {
	const op = "generate signer"
	err := classify(op, ErrNoSigningMechanism)
	for _, row := range signature.Algorithms() {
		if !slices.Contains(d.capabilities.Signing, row.Name) {
			continue
		}
		id := newKeyID()
		pair, failure := create(ctx, d, op, func(s *session, sent *atomic.Bool) (keyPair, error) {
			return s.generatePair(id, row, sent)
		})
		if failure == nil {
			d.rememberSigner(pair)
			return pair.Signer, nil
		}
		if e := classify(op, failure); e.Class != ClassCaller || ctx.Err() != nil {
			return Signer{ID: id}, e
		}
		err = classify(op, errors.Join(ErrNoSigningMechanism, failure))
	}
	return Signer{}, err
}

// generatePair makes the key pair unless an earlier attempt of the same call did,
// and tries it. A pair that cannot sign is removed.
func (s *session) generatePair(id KeyID, row *signature.Algorithm, sent *atomic.Bool) (keyPair, error) {
	_, err := s.Find(privateObject(id))
	if errors.Is(err, cryptoki.ErrAbsent) {
		err = s.makePair(id, row, sent)
	}
	if err != nil {
		return keyPair{}, err
	}
	pair, err := s.pair(id)
	if err == nil {
		_, err = s.sign(pair, []byte("keywright signer self-test"))
	}
	if err != nil && classify("", err).Class == ClassCaller && s.Destroy(id) == nil {
		sent.Store(false)
	}
	return pair, err
}

// makePair tries each encoding of the curve's name until the token takes one.
func (s *session) makePair(id KeyID, row *signature.Algorithm, sent *atomic.Bool) (err error) {
	for _, params := range row.Params {
		sent.Store(true)
		err = s.GeneratePair(id, "keywright signer "+id.String(), row.Generate, params)
		if err == nil || classify("", err).Class != ClassCaller {
			return err
		}
		sent.Store(false) // a refusal is an outcome
	}
	return err
}

// FindSigner implements Service.
func (d *Device) FindSigner(ctx context.Context, id KeyID) (Signer, error) {
	pair, err := call(ctx, d, "find signer", func(s *session) (keyPair, error) { return s.pair(id) })
	if err != nil {
		return Signer{}, err
	}
	d.rememberSigner(pair)
	return pair.Signer, nil
}

// pair reads a key pair: ErrSignerNotFound, ErrDuplicateObject, ErrUnprotected.
func (s *session) pair(id KeyID) (keyPair, error) {
	private, err := s.Find(privateObject(id))
	if err != nil {
		return keyPair{}, missing(id, err)
	}
	if err := s.Protected(private); err != nil {
		return keyPair{}, err
	}
	public, err := s.Find(publicObject(id))
	if err != nil {
		return keyPair{}, missing(id, err)
	}
	params, point, err := s.PublicKey(public)
	if err != nil {
		return keyPair{}, err
	}
	return newKeyPair(id, params, signature.Point(point))
}

func missing(id KeyID, err error) error {
	if errors.Is(err, cryptoki.ErrAbsent) {
		return fmt.Errorf("%w: %s", ErrSignerNotFound, id)
	}
	return err
}

func newKeyPair(id KeyID, params, point []byte) (keyPair, error) {
	row, ok := signature.OfCurve(params)
	if !ok {
		return keyPair{}, fmt.Errorf("%w: %s has an unknown curve", ErrSignerNotFound, id)
	}
	public, err := row.Public(point)
	if err != nil {
		return keyPair{}, fault(ClassDevice, fmt.Errorf("public key of signer %s: %w", id, err))
	}
	return keyPair{Signer{ID: id, Algorithm: row.Name, PublicKey: public}, row}, nil
}

func (d *Device) rememberSigner(pair keyPair) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signers[pair.ID] = pair
}

func (d *Device) knownSigner(id KeyID) (keyPair, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	pair, ok := d.signers[id]
	return pair, ok
}

// Sign implements Service. The signer must have been generated or found through
// this Device.
func (d *Device) Sign(ctx context.Context, signer KeyID, message []byte) ([]byte, error) {
	if len(message) > MaxMessage {
		return nil, classify("sign", fmt.Errorf("%w: message of %d bytes, want at most %d", ErrInvalidArgument, len(message), MaxMessage))
	}
	pair, ok := d.knownSigner(signer)
	if !ok {
		return nil, classify("sign", fmt.Errorf("%w: %s was neither generated nor found on this token", ErrSignerNotFound, signer))
	}
	message = bytes.Clone(message) // the call may outlast us
	return call(ctx, d, "sign", func(s *session) ([]byte, error) { return s.sign(pair, message) })
}

// sign returns a signature that it has verified: a wrong one can betray the key,
// and a token that went wrong is not believed.
func (s *session) sign(pair keyPair, message []byte) ([]byte, error) {
	key, err := s.Find(privateObject(pair.ID))
	if errors.Is(err, cryptoki.ErrAbsent) {
		return nil, fault(ClassDevice, missing(pair.ID, err))
	}
	if err != nil {
		return nil, err
	}
	raw, err := s.Sign(key, pair.algorithm.Sign, pair.algorithm.Input(message))
	if err != nil {
		return nil, err
	}
	if len(raw) != signature.RawSize {
		return nil, fault(ClassDevice, fmt.Errorf("token returned a signature of %d bytes, want %d", len(raw), signature.RawSize))
	}
	encoded, err := pair.algorithm.Encode(raw)
	if err != nil {
		return nil, err
	}
	if !pair.algorithm.Verify(pair.PublicKey, message, encoded) {
		return nil, fault(ClassDevice, errors.New("token returned a signature that does not verify"))
	}
	return encoded, nil
}
