// Package domain holds what protects a namespace's records: a 256-bit domain
// secret, wrapped by the root key, and the keys derived from it that seal key
// material and authenticate stored records.
//
// The derivation binds installation, namespace and generation, so that a wrapped
// secret or a record that was moved elsewhere yields nothing usable. A Domain is
// immutable and safe for concurrent use; it lives as long as its namespace is in
// memory.
package domain

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"sync"

	"github.com/keywright/keywright/keyring"
)

const secretSize = 32

// ErrNotAuthentic says that a record or sealed value was not made by this
// domain for this place, or was changed since.
var ErrNotAuthentic = errors.New("domain: record is not authentic")

// ID names a domain: a generation of a namespace of an installation.
type ID struct {
	Installation [16]byte
	Namespace    uint64
	Generation   uint32
}

// info is the unambiguous encoding of the id with a use, for HKDF and as the
// AAD of the root wrap.
func (id ID) info(use string) []byte {
	b := append([]byte("keywright domain v1\x00"), id.Installation[:]...)
	b = binary.BigEndian.AppendUint64(b, id.Namespace)
	b = binary.BigEndian.AppendUint32(b, id.Generation)
	return append(b, use...)
}

// Root wraps and unwraps domain secrets under the root key.
type Root interface {
	Wrap(ctx context.Context, secret, aad []byte) (blob []byte, err error)
	Unwrap(ctx context.Context, blob, aad []byte) (secret []byte, err error)
}

// Domain is one namespace's generation of derived keys.
type Domain struct {
	id      ID
	sealing *keyring.Version
	macs    sync.Pool // of hash.Hash, keyed with the domain's MAC key
}

// Create draws a new domain secret from random and returns its domain and the
// secret wrapped under the root key.
func Create(ctx context.Context, root Root, random io.Reader, id ID) (*Domain, []byte, error) {
	secret := make([]byte, secretSize)
	defer clear(secret)
	if _, err := io.ReadFull(random, secret); err != nil {
		return nil, nil, fmt.Errorf("draw domain secret: %w", err)
	}
	blob, err := root.Wrap(ctx, secret, id.info("wrap"))
	if err != nil {
		return nil, nil, err
	}
	d, err := derive(secret, id)
	return d, blob, err
}

// Open unwraps a domain secret by one call of the root key. The caller must then
// verify the namespace's own record with the domain before it uses either.
func Open(ctx context.Context, root Root, id ID, blob []byte) (*Domain, error) {
	secret, err := root.Unwrap(ctx, blob, id.info("wrap"))
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	if len(secret) != secretSize {
		return nil, ErrNotAuthentic
	}
	return derive(secret, id)
}

// derive makes the domain keys: HKDF-SHA-256 (RFC 5869), one for each use.
func derive(secret []byte, id ID) (*Domain, error) {
	sealKey, err := hkdf.Key(sha256.New, secret, nil, string(id.info("seal")), 32)
	if err != nil {
		return nil, err
	}
	macKey, err := hkdf.Key(sha256.New, secret, nil, string(id.info("mac")), 32)
	if err != nil {
		return nil, err
	}
	algorithm := keyring.Default(keyring.PurposeEncryptDecrypt)
	material := keyring.NewMaterial(sealKey)
	defer material.Wipe()
	sealing, err := keyring.NewVersion(algorithm, id.Namespace, id.Generation, material)
	if err != nil {
		return nil, err
	}
	d := &Domain{id: id, sealing: sealing}
	d.macs.New = func() any { return hmac.New(sha256.New, macKey) }
	return d, nil
}

// Generation returns the generation of the domain.
func (d *Domain) Generation() uint32 { return d.id.Generation }

// LogValue keeps a domain out of logs.
func (d *Domain) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// String keeps a domain out of formatted text.
func (d *Domain) String() string { return "[redacted]" }

// GoString keeps a domain out of %#v.
func (d *Domain) GoString() string { return "[redacted]" }

// Seal encrypts a secret (XAES-256-GCM) bound to its place: a text that names
// record type, key, version and algorithm.
func (d *Domain) Seal(place string, secret []byte) ([]byte, error) {
	return d.sealing.Seal(nil, secret, keyring.RawAAD([]byte(place)))
}

// Open decrypts what Seal made for the same place, else ErrNotAuthentic.
func (d *Domain) Open(place string, sealed []byte) ([]byte, error) {
	secret, err := d.sealing.Open(nil, sealed, keyring.RawAAD([]byte(place)))
	if err != nil {
		return nil, ErrNotAuthentic
	}
	return secret, nil
}

// mac computes HMAC-SHA-256 over the length-prefixed path and the body.
func (d *Domain) mac(path string, body []byte) []byte {
	h := d.macs.Get().(hash.Hash)
	defer d.macs.Put(h)
	h.Reset()
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(path)))
	h.Write(size[:])
	h.Write([]byte(path))
	h.Write(body)
	return h.Sum(nil)
}
