package hsm

import (
	"bytes"
	"context"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// MaxData is the longest data that UseKey takes, in bytes, unless the use says
// otherwise. Tokens may take less.
const MaxData = 1 << 20

// operation is what a Use does.
type operation struct {
	name    string
	purpose algorithm.Purpose
	check   func(k heldKey, data, extra []byte) error
	run     func(s *session, k heldKey, data, extra []byte) ([]byte, error)
}

var operations = map[Use]operation{
	UseEncrypt:           {"encrypt", algorithm.Encrypt, checkPlaintext, (*session).encrypt},
	UseDecrypt:           {"decrypt", algorithm.Encrypt, checkCiphertext, (*session).decrypt},
	UseSign:              {"sign", algorithm.Sign, checkDigest, func(s *session, k heldKey, data, _ []byte) ([]byte, error) { return s.signature(k, data) }},
	UseMAC:               {"MAC", algorithm.MAC, checkMessage, func(s *session, k heldKey, data, _ []byte) ([]byte, error) { return s.mac(k, data) }},
	UseDecryptAsymmetric: {"decrypt", algorithm.Decrypt, checkOAEP, (*session).decryptOAEP},
	UseAgree:             {"agree", algorithm.Agree, checkPeer, func(s *session, k heldKey, data, _ []byte) ([]byte, error) { return s.agreement(k, data) }},
}

// UseKey implements Keys. Data is at most MaxData bytes, extra at most MaxAAD; a
// signature was verified before it is returned.
func (d *Device) UseKey(ctx context.Context, id KeyID, name string, use Use, data, extra []byte) ([]byte, error) {
	o := operations[use]
	k, err := d.usable(id, name, o)
	if err == nil {
		err = o.check(k, data, extra)
	}
	if err != nil {
		return nil, classify("use key", err)
	}
	data, extra = bytes.Clone(data), bytes.Clone(extra) // the call may outlast us
	made, err := call(ctx, d, o.name, func(s *session) ([]byte, error) {
		if err := d.present(s, k); err != nil {
			return nil, err
		}
		if use == UseDecryptAsymmetric && len(extra) > 0 {
			if err := d.labels(s, k); err != nil {
				return nil, err
			}
		}
		return o.run(s, k, data, extra)
	})
	if err == nil && use == UseEncrypt {
		clear(data) // after a failure the token may still be reading it
	}
	return made, err
}

func (d *Device) usable(id KeyID, name string, o operation) (heldKey, error) {
	if o.run == nil {
		return heldKey{}, fmt.Errorf("%w: use: want one of UseEncrypt to UseAgree", ErrInvalidArgument)
	}
	k, err := d.knownKey(id, name)
	if err == nil && k.row.Purpose != o.purpose {
		err = fmt.Errorf("%w: use: a key of %s does not %s", ErrInvalidArgument, name, o.name)
	}
	return k, err
}

// present makes sure that the token holds the key, when the connection has not found
// it yet. A secret key is proved: another may have been put in its place.
func (d *Device) present(s *session, k heldKey) error {
	o := k.row.Object(k.ID)
	if _, ok := s.Known(o); ok {
		return nil
	}
	_, err := s.Find(o)
	if err == nil && !k.row.Pair() {
		_, err = s.prove(k)
	}
	if errors.Is(err, errImpostor) {
		s.Forget()
		return fmt.Errorf("%w: %s: %w", ErrKeyNotFound, k.ID, err)
	}
	return d.notFound(s, k.ID, err)
}

func checkSize(what string, b []byte, limit int) error {
	if len(b) > limit {
		return fmt.Errorf("%w: %s of %d bytes, want at most %d", ErrInvalidArgument, what, len(b), limit)
	}
	return nil
}

func checkPlaintext(_ heldKey, plaintext, aad []byte) error {
	return errors.Join(checkSize("plaintext", plaintext, MaxData), checkSize("AAD", aad, MaxAAD))
}

func checkCiphertext(_ heldKey, ciphertext, aad []byte) error {
	if len(ciphertext) < ivSize+tagSize {
		return ErrDecrypt
	}
	return errors.Join(checkSize("ciphertext", ciphertext, MaxData+ivSize+tagSize), checkSize("AAD", aad, MaxAAD))
}

func checkDigest(k heldKey, data, extra []byte) error {
	if k.row.Hash == 0 {
		return errors.Join(checkSize("message", data, MaxMessage), checkSize("extra", extra, 0))
	}
	if len(data) != k.row.Hash.Size() {
		return fmt.Errorf("%w: digest of %d bytes, want %d of %v", ErrInvalidArgument, len(data), k.row.Hash.Size(), k.row.Hash)
	}
	return checkSize("extra", extra, 0)
}

func checkMessage(_ heldKey, message, extra []byte) error {
	return errors.Join(checkSize("message", message, MaxData), checkSize("extra", extra, 0))
}

func checkOAEP(k heldKey, ciphertext, label []byte) error {
	if len(ciphertext) != k.row.Bits/8 {
		return ErrDecrypt
	}
	return checkSize("label", label, MaxAAD)
}

func checkPeer(k heldKey, peer, extra []byte) error {
	if _, ok := k.row.Peer(peer); !ok {
		return fmt.Errorf("%w: peer: want a public key of %s, an uncompressed point or 32 bytes of X25519", ErrInvalidArgument, k.Algorithm)
	}
	return checkSize("extra", extra, 0)
}

func (s *session) encrypt(k heldKey, plaintext, aad []byte) ([]byte, error) {
	key, err := s.Find(k.row.Object(k.ID))
	if err != nil {
		return nil, err
	}
	body := make([]byte, ivSize+len(plaintext)+tagSize)
	if _, err = s.seal(body[ivSize:], key, body[:ivSize:ivSize], plaintext, aad); err != nil {
		return nil, err
	}
	return body, nil
}

func (s *session) decrypt(k heldKey, body, aad []byte) ([]byte, error) {
	key, err := s.Find(k.row.Object(k.ID))
	if err != nil {
		return nil, err
	}
	iv, ciphertext := body[:ivSize:ivSize], body[ivSize:]
	plaintext, err := s.opened(k, func() ([]byte, error) {
		return s.Decrypt(key, cryptoki.GCM(iv, aad), ciphertext, len(ciphertext))
	})
	if err == nil && len(plaintext) != len(ciphertext)-tagSize {
		return nil, fault(ClassDevice, errors.New("AES-GCM in the token returned a plaintext of wrong size"))
	}
	return plaintext, err
}

func (s *session) decryptOAEP(k heldKey, ciphertext, label []byte) ([]byte, error) {
	key, err := s.Find(k.row.Object(k.ID))
	if err != nil {
		return nil, err
	}
	return s.opened(k, func() ([]byte, error) {
		return s.Decrypt(key, cryptoki.OAEP(k.row.Hash, label), ciphertext, k.row.Bits/8)
	})
}

// labels makes sure that the token honours labels of RSA-OAEP. Some modules refuse
// them, some pass over them in silence.
func (d *Device) labels(s *session, k heldKey) error {
	if d.labelled.Load() {
		return nil
	}
	opens, err := s.opensLabelled(k)
	if err != nil {
		return err
	}
	if !opens {
		return fmt.Errorf("%w: label: this token takes none", ErrInvalidArgument)
	}
	d.labelled.Store(true)
	return nil
}

// opensLabelled tries a ciphertext with a label, under a key that is well.
func (s *session) opensLabelled(k heldKey) (bool, error) {
	label := []byte("label")
	secret, ciphertext, err := k.encryptOAEP(label)
	if err != nil {
		return false, err
	}
	key, err := s.Find(k.row.Object(k.ID))
	if err != nil {
		return false, err
	}
	opened, err := s.opened(k, func() ([]byte, error) {
		return s.Decrypt(key, cryptoki.OAEP(k.row.Hash, label), ciphertext, k.row.Bits/8)
	})
	if errors.Is(err, ErrDecrypt) {
		return false, nil
	}
	return err == nil && bytes.Equal(opened, secret), err
}

// opened decrypts, and tells a bad ciphertext from a sick device by trying the key.
func (s *session) opened(k heldKey, decrypt func() ([]byte, error)) ([]byte, error) {
	plaintext, err := decrypt()
	if !ambiguous(err) {
		return plaintext, err
	}
	canary := func() error {
		_, err := s.prove(k)
		return err
	}
	return s.diagnose(canary, ErrDecrypt, err, decrypt)
}

func (s *session) mac(k heldKey, message []byte) ([]byte, error) {
	key, err := s.Find(k.row.Object(k.ID))
	if err != nil {
		return nil, err
	}
	size := k.row.Hash.Size()
	tag, err := s.Sign(key, cryptoki.Plain(k.row.Use), message, size)
	if err == nil && len(tag) != size {
		err = fault(ClassDevice, fmt.Errorf("token returned a MAC of %d bytes, want %d", len(tag), size))
	}
	return tag, err
}

// agreement gives the token the peer's point as it is (PKCS#11 v2.40 section 2.3.8),
// or else as the OCTET STRING that older modules want.
func (s *session) agreement(k heldKey, peer []byte) ([]byte, error) {
	key, err := s.Find(k.row.Object(k.ID))
	if err != nil {
		return nil, err
	}
	size := (k.row.Bits + 7) / 8
	secret, err := s.Agree(key, k.row.Use, peer, size)
	if err != nil && classify("", err).Class == ClassCaller {
		var encoded []byte
		if encoded, err = asn1.Marshal(peer); err == nil {
			secret, err = s.Agree(key, k.row.Use, encoded, size)
		}
	}
	if err == nil && len(secret) != size {
		err = fault(ClassDevice, fmt.Errorf("token returned a secret of %d bytes, want %d", len(secret), size))
	}
	return secret, err
}
