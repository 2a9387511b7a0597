package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

func privateObject(id KeyID) object { return object{id, pkcs11.CKO_PRIVATE_KEY} }
func publicObject(id KeyID) object  { return object{id, pkcs11.CKO_PUBLIC_KEY} }

// keyPair is a Signer with its row of the table.
type keyPair struct {
	Signer
	algorithm *signature
}

// capabilities reads the token's list of mechanisms.
func (m *module) capabilities(slot uint) (Capabilities, error) {
	list, err := m.p11.GetMechanismList(slot)
	if err != nil {
		return Capabilities{}, err
	}
	has := func(mechanism uint) bool {
		return slices.ContainsFunc(list, func(m *pkcs11.Mechanism) bool { return m.Mechanism == mechanism })
	}
	c := Capabilities{RootWrap: has(pkcs11.CKM_AES_KEY_GEN) && has(pkcs11.CKM_AES_GCM)}
	for _, s := range signatures {
		if has(s.generate) && has(s.sign) {
			c.Signing = append(c.Signing, s.name)
		}
	}
	return c, nil
}

// GenerateSigner implements Service. What the token lists but cannot do is passed
// over.
func (d *Device) GenerateSigner(ctx context.Context) (Signer, error) {
	const op = "generate signer"
	err := classify(op, ErrNoSigningMechanism)
	for i := range signatures {
		row := &signatures[i]
		if !slices.Contains(d.capabilities.Signing, row.name) {
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
func (s *session) generatePair(id KeyID, row *signature, sent *atomic.Bool) (keyPair, error) {
	_, err := s.find(privateObject(id))
	if errors.Is(err, errAbsent) {
		err = s.makePair(id, row, sent)
	}
	if err != nil {
		return keyPair{}, err
	}
	pair, err := s.pair(id)
	if err == nil {
		_, err = s.sign(pair, []byte("keywright signer self-test"))
	}
	if err != nil && classify("", err).Class == ClassCaller && s.destroy(id) == nil {
		sent.Store(false)
	}
	return pair, err
}

// makePair tries each encoding of the curve's name until the token takes one.
func (s *session) makePair(id KeyID, row *signature, sent *atomic.Bool) (err error) {
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(row.generate, nil)}
	for _, params := range row.params {
		sent.Store(true)
		public, private := pairTemplates(id, params)
		_, _, err = s.module.p11.GenerateKeyPair(s.handle, mechanism, public, private)
		if err == nil || classify("", err).Class != ClassCaller {
			return err
		}
		sent.Store(false) // a refusal is an outcome
	}
	return err
}

func pairTemplates(id KeyID, params []byte) (public, private []*pkcs11.Attribute) {
	common := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, "keywright signer "+id.String()),
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
	private, err := s.find(privateObject(id))
	if err != nil {
		return keyPair{}, missing(id, err)
	}
	if err := s.protected(private); err != nil {
		return keyPair{}, err
	}
	public, err := s.find(publicObject(id))
	if err != nil {
		return keyPair{}, missing(id, err)
	}
	attributes, err := s.module.p11.GetAttributeValue(s.handle, public, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil),
	})
	if err != nil {
		return keyPair{}, err
	}
	return newKeyPair(id, attributes[0].Value, ecPoint(attributes[1].Value))
}

func missing(id KeyID, err error) error {
	if errors.Is(err, errAbsent) {
		return fmt.Errorf("%w: %s", ErrSignerNotFound, id)
	}
	return err
}

func newKeyPair(id KeyID, params, point []byte) (keyPair, error) {
	for i := range signatures {
		row := &signatures[i]
		if !slices.ContainsFunc(row.params, func(p []byte) bool { return bytes.Equal(p, params) }) {
			continue
		}
		public, err := row.public(point)
		if err != nil {
			return keyPair{}, fault(ClassDevice, fmt.Errorf("public key of signer %s: %w", id, err))
		}
		return keyPair{Signer{ID: id, Algorithm: row.name, PublicKey: public}, row}, nil
	}
	return keyPair{}, fmt.Errorf("%w: %s has an unknown curve", ErrSignerNotFound, id)
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
	key, err := s.find(privateObject(pair.ID))
	if errors.Is(err, errAbsent) {
		return nil, fault(ClassDevice, missing(pair.ID, err))
	}
	if err != nil {
		return nil, err
	}
	raw, err := s.signRaw(key, pair.algorithm, message)
	if err != nil {
		return nil, err
	}
	if len(raw) != rawSigSize {
		return nil, fault(ClassDevice, fmt.Errorf("token returned a signature of %d bytes, want %d", len(raw), rawSigSize))
	}
	encoded, err := pair.algorithm.encode(raw)
	if err != nil {
		return nil, err
	}
	if !pair.algorithm.verify(pair.PublicKey, message, encoded) {
		return nil, fault(ClassDevice, errors.New("token returned a signature that does not verify"))
	}
	return encoded, nil
}

func (s *session) signRaw(key pkcs11.ObjectHandle, row *signature, message []byte) ([]byte, error) {
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(row.sign, nil)}
	if err := s.module.p11.SignInit(s.handle, mechanism, key); err != nil {
		return nil, err
	}
	return s.module.p11.Sign(s.handle, row.input(message))
}
