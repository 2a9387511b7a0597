// Package domain holds what protects a namespace's records: a 256-bit domain
// secret, wrapped by the root key, and the keys derived from it that seal key
// material and authenticate stored records.
//
// The derivation binds installation, namespace and generation, so that a wrapped
// secret or a record that was moved elsewhere yields nothing usable. While a
// namespace is rekeyed its domain also opens what the generation before has
// sealed, and seals nothing under it any more. A Domain is immutable and safe for
// concurrent use; it lives as long as its namespace is in memory.
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
	"sync/atomic"

	"github.com/keywright/keywright/keyring"
)

const secretSize = 32

// ErrNotAuthentic says that a record or sealed value was not made by this
// domain for this place, or was changed since.
var ErrNotAuthentic = errors.New("domain: record is not authentic")

// ErrNewer is an ErrNotAuthentic that may only mean that the domain is out of
// date: the record claims a later generation.
var ErrNewer = fmt.Errorf("%w: it claims a newer generation", ErrNotAuthentic)

// ErrDropped says that the domain's keys were dropped from memory.
var ErrDropped = errors.New("domain: its keys were dropped from memory")

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

// Domain seals and authenticates under one generation of a namespace, and opens
// and verifies what that generation did or the one it is about to replace.
type Domain struct {
	*generation
	revision uint64
	previous *generation // nil unless the namespace is being rekeyed
}

// generation is one generation of a namespace with its keys, nil once dropped.
type generation struct {
	id   ID
	keys atomic.Pointer[keys]
}

// keys are derived from one domain secret.
type keys struct {
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
	made, err := derive(secret, id)
	return &Domain{generation: made}, blob, err
}

// Open unwraps a domain secret by one call of the root key. The caller must then
// verify the namespace's own record with the domain before it uses either.
func Open(ctx context.Context, root Root, id ID, blob []byte) (*Domain, error) {
	d, secret, err := openSecret(ctx, root, id, blob)
	clear(secret)
	return d, err
}

func openSecret(ctx context.Context, root Root, id ID, blob []byte) (*Domain, []byte, error) {
	secret, err := root.Unwrap(ctx, blob, id.info("wrap"))
	if err != nil {
		return nil, nil, err
	}
	if len(secret) != secretSize {
		return nil, secret, ErrNotAuthentic
	}
	opened, err := derive(secret, id)
	return &Domain{generation: opened}, secret, err
}

// Rewrap unwraps a domain secret and wraps it under another root key. verify is
// called between the two: what fails it is not wrapped anew.
func Rewrap(ctx context.Context, from, to Root, id ID, blob []byte, verify func(*Domain) error) (*Domain, []byte, error) {
	d, secret, err := openSecret(ctx, from, id, blob)
	defer clear(secret)
	if err == nil {
		err = verify(d)
	}
	if err != nil {
		return nil, nil, err
	}
	again, err := to.Wrap(ctx, secret, id.info("wrap"))
	return d, again, err
}

// derive makes the domain keys: HKDF-SHA-256 (RFC 5869), one for each use.
func derive(secret []byte, id ID) (*generation, error) {
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
	k := &keys{sealing: sealing}
	k.macs.New = func() any { return hmac.New(sha256.New, macKey) }
	g := &generation{id: id}
	g.keys.Store(k)
	return g, nil
}

// Drop takes the keys of the domain out of memory, for all that share them: until
// Restore all methods fail with ErrDropped, and Authenticate and Tag return nil.
// Calls under way may still end. What Go's ciphers hold cannot be zeroed; it is left
// to the garbage collector.
func (d *Domain) Drop() {
	d.generation.keys.Store(nil)
	if d.previous != nil {
		d.previous.keys.Store(nil)
	}
}

// Restore gives a domain that was dropped the keys of the same one opened anew.
func (d *Domain) Restore(opened *Domain) { d.generation.keys.Store(opened.generation.keys.Load()) }

// StoredAt returns the domain knowing the revision at which the store holds its
// wrapped secret. Who writes under the domain expects that record unchanged.
func (d *Domain) StoredAt(revision uint64) *Domain {
	return &Domain{d.generation, revision, d.previous}
}

// Revision returns what StoredAt was given, 0 for a secret not yet stored.
func (d *Domain) Revision() uint64 { return d.revision }

// Accepting returns the domain that also opens what older has sealed.
func (d *Domain) Accepting(older *Domain) *Domain {
	return &Domain{d.generation, d.revision, older.generation}
}

// Alone returns the domain without what it accepted of an older one.
func (d *Domain) Alone() *Domain { return &Domain{d.generation, d.revision, nil} }

// Namespace returns the id of the domain's namespace, 0 for `system`.
func (d *Domain) Namespace() uint64 { return d.id.Namespace }

// Generation returns the generation that the domain seals under.
func (d *Domain) Generation() uint32 { return d.id.Generation }

// Previous returns the older generation that the domain accepts, 0 for none.
func (d *Domain) Previous() uint32 {
	if d.previous == nil {
		return 0
	}
	return d.previous.id.Generation
}

// of returns the keys of a generation that is in force.
func (d *Domain) of(number uint32) (*generation, error) {
	switch {
	case number == d.id.Generation:
		return d.generation, nil
	case number > d.id.Generation:
		return nil, ErrNewer
	case d.previous != nil && number == d.previous.id.Generation:
		return d.previous, nil
	}
	return nil, ErrNotAuthentic
}

// LogValue keeps a domain out of logs.
func (d *Domain) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// String keeps a domain out of formatted text.
func (d *Domain) String() string { return "[redacted]" }

// GoString keeps a domain out of %#v.
func (d *Domain) GoString() string { return "[redacted]" }

// Seal encrypts a secret (XAES-256-GCM) bound to its place: a text that names
// record type, key, version and algorithm.
func (d *Domain) Seal(place string, secret []byte) ([]byte, error) {
	k := d.keys.Load()
	if k == nil {
		return nil, ErrDropped
	}
	return k.sealing.Seal(nil, secret, keyring.RawAAD([]byte(place)))
}

// SealedUnder returns the generation that a sealed secret claims, unverified.
func SealedUnder(sealed []byte) (uint32, error) {
	header, err := keyring.ParseHeader(sealed)
	if err != nil {
		return 0, ErrNotAuthentic
	}
	return header.Version, nil
}

// Open decrypts what Seal made for the same place, under a generation that is in
// force, else ErrNotAuthentic.
func (d *Domain) Open(place string, sealed []byte) ([]byte, error) {
	number, err := SealedUnder(sealed)
	if err != nil {
		return nil, err
	}
	g, err := d.of(number)
	if err != nil {
		return nil, err
	}
	k := g.keys.Load()
	if k == nil {
		return nil, ErrDropped
	}
	secret, err := k.sealing.Open(nil, sealed, keyring.RawAAD([]byte(place)))
	if err != nil {
		return nil, ErrNotAuthentic
	}
	return secret, nil
}

// Tag computes HMAC-SHA-256 over a message, for a purpose other than records.
func (d *Domain) Tag(purpose string, message []byte) []byte {
	k := d.keys.Load()
	if k == nil {
		return nil
	}
	return k.mac("tag "+purpose, message)
}

// mac computes HMAC-SHA-256 over the length-prefixed path and the body.
func (k *keys) mac(path string, body []byte) []byte {
	h := k.macs.Get().(hash.Hash)
	defer k.macs.Put(h)
	h.Reset()
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(path)))
	h.Write(size[:])
	h.Write([]byte(path))
	h.Write(body)
	return h.Sum(nil)
}
