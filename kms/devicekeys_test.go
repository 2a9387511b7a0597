package kms

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"
	_ "crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/keywright/keywright/keyring"
)

// softKey is a key of protection level HSM on the softDevice: symmetric bytes, or
// PKCS#8.
type softKey struct {
	Algorithm string
	Material  []byte
}

// deviceFault is what befalls the next making of a key.
type deviceFault int

const (
	replyLost deviceFault = 1 + iota // it is made, and nobody is told
	replyLate                        // it is made later, by arrive
	tokenFull
)

// softAlgorithms are those that the softDevice makes keys of.
var softAlgorithms = map[string]func() ([]byte, error){
	"AES_256_GCM":       randomKey(32),
	"AES_128_GCM":       randomKey(16),
	"HMAC_SHA256":       randomKey(32),
	"ECDSA_P256_SHA256": pairOf(func() (any, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }),
	"ED25519": pairOf(func() (any, error) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}),
	"RSA_OAEP_2048_SHA256": pairOf(func() (any, error) { return rsa.GenerateKey(rand.Reader, 2048) }),
	"ECDH_P256":            pairOf(func() (any, error) { return ecdh.P256().GenerateKey(rand.Reader) }),
}

// wrapping is the algorithm of the keys that it makes to wrap others to.
func (d *softDevice) wrapping() string {
	if d.oaep256 {
		return wrappingKeys[0].algorithm
	}
	return wrappingKeys[1].algorithm
}

// wrapping3072 is the same key each time: making one takes seconds.
var wrapping3072 = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 3072) })

func randomKey(n int) func() ([]byte, error) {
	return func() ([]byte, error) {
		b := make([]byte, n)
		_, err := rand.Read(b)
		return b, err
	}
}

func pairOf(generate func() (any, error)) func() ([]byte, error) {
	return func() ([]byte, error) {
		private, err := generate()
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(private)
	}
}

func (d *softDevice) GenerateKey(_ context.Context, id ObjectID, algorithm string) (HSMKey, error) {
	done, err := d.call()
	if err != nil {
		return HSMKey{}, err
	}
	defer done()
	generate, ok := softAlgorithms[algorithm]
	if algorithm == d.wrapping() {
		generate, ok = pairOf(func() (any, error) { return wrapping3072() }), true
	}
	if !ok {
		return HSMKey{}, ErrKeyAlgorithm
	}
	material, err := generate()
	if err != nil {
		return HSMKey{}, err
	}
	return d.hold(id, softKey{algorithm, material})
}

// hold puts a key into the device, unless a fault befalls that. It needs the lock.
func (d *softDevice) hold(id ObjectID, k softKey) (HSMKey, error) {
	fault := d.fault
	d.fault = 0
	switch fault {
	case tokenFull:
		return HSMKey{}, ErrTokenFull
	case replyLate:
		d.late = func() { d.keys[id] = k }
		return HSMKey{}, ErrUnknownOutcome
	}
	held, err := d.put(id, k)
	if fault == replyLost {
		return HSMKey{}, ErrUnknownOutcome
	}
	return held, err
}

// put needs the lock.
func (d *softDevice) put(id ObjectID, k softKey) (HSMKey, error) {
	if _, taken := d.keys[id]; taken {
		return HSMKey{}, errors.New("duplicate object")
	}
	d.keys[id] = k
	d.know(id)
	d.made++
	return d.describe(id, k)
}

func (d *softDevice) describe(id ObjectID, k softKey) (HSMKey, error) {
	described := HSMKey{ID: id, Algorithm: k.Algorithm, Origin: Origin{Local: true, NeverExtractable: true, AlwaysSensitive: true}}
	a, ok := keyring.Lookup(k.Algorithm)
	if ok && !a.Asymmetric() {
		return described, nil
	}
	private, err := x509.ParsePKCS8PrivateKey(k.Material)
	if err != nil {
		return described, err
	}
	described.PublicKey, err = x509.MarshalPKIXPublicKey(private.(interface{ Public() crypto.PublicKey }).Public())
	return described, err
}

// arrive lets a key appear whose making was given up for lost.
func (d *softDevice) arrive() {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.late()
}

func (d *softDevice) setFault(f deviceFault) {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.fault = f
}

func (d *softDevice) ImportKey(_ context.Context, id ObjectID, algorithm string, material []byte) (HSMKey, error) {
	done, err := d.call()
	if err != nil {
		return HSMKey{}, err
	}
	defer done()
	if _, ok := softAlgorithms[algorithm]; !ok {
		return HSMKey{}, ErrKeyAlgorithm
	}
	k, err := d.hold(id, softKey{algorithm, bytes.Clone(material)})
	k.Origin = Origin{}
	return k, err
}

func (d *softDevice) FindKey(_ context.Context, id ObjectID, _ string) (HSMKey, error) {
	done, err := d.call()
	if err != nil {
		return HSMKey{}, err
	}
	defer done()
	d.finds++
	k, ok := d.keys[id]
	if !ok {
		return HSMKey{}, ErrNoKey
	}
	d.know(id)
	return d.describe(id, k)
}

func (d *softDevice) UseKey(ctx context.Context, id ObjectID, _ string, use keyring.Use, data, extra []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done, err := d.call()
	if err != nil {
		return nil, err
	}
	defer done()
	k, ok := d.keys[id]
	if !ok || !d.known[id] {
		return nil, ErrNoKey
	}
	return k.use(use, data, extra)
}

func (k softKey) use(use keyring.Use, data, extra []byte) ([]byte, error) {
	switch use {
	case keyring.UseEncrypt, keyring.UseDecrypt:
		return k.gcm(use, data, extra)
	case keyring.UseMAC:
		h := hmac.New(crypto.SHA256.New, k.Material)
		h.Write(data)
		return h.Sum(nil), nil
	}
	private, err := x509.ParsePKCS8PrivateKey(k.Material)
	if err != nil {
		return nil, err
	}
	switch p := private.(type) {
	case *ecdsa.PrivateKey:
		if use == keyring.UseAgree { // PKCS#8 does not tell ECDH from ECDSA
			return agree(p, data)
		}
		return ecdsa.SignASN1(rand.Reader, p, data)
	case ed25519.PrivateKey:
		return ed25519.Sign(p, data), nil
	case *rsa.PrivateKey:
		plaintext, err := p.Decrypt(nil, data, &rsa.OAEPOptions{Hash: k.hash(), Label: extra})
		if err != nil {
			err = keyring.ErrDecrypt
		}
		return plaintext, err
	}
	return nil, fmt.Errorf("use %d of %T", use, private)
}

func (k softKey) hash() crypto.Hash {
	if strings.HasSuffix(k.Algorithm, "_SHA1") {
		return crypto.SHA1
	}
	return crypto.SHA256
}

func agree(p *ecdsa.PrivateKey, peer []byte) ([]byte, error) {
	own, err := p.ECDH()
	if err != nil {
		return nil, err
	}
	public, err := own.Curve().NewPublicKey(peer)
	if err != nil {
		return nil, err
	}
	return own.ECDH(public)
}

func (k softKey) gcm(use keyring.Use, data, extra []byte) ([]byte, error) {
	block, err := aes.NewCipher(k.Material)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	if use == keyring.UseEncrypt {
		return aead.Seal(nil, nil, data, extra), nil
	}
	plaintext, err := aead.Open(nil, nil, data, extra)
	if err != nil {
		err = fmt.Errorf("device: %w", keyring.ErrDecrypt)
	}
	return plaintext, err
}

func (d *softDevice) ListKeys(context.Context) ([]ObjectID, error) {
	done, err := d.call()
	if err != nil {
		return nil, err
	}
	defer done()
	return slices.Collect(maps.Keys(d.keys)), nil
}

// keyIDs are the keys on the device, in order, whatever state it is in.
func (d *softDevice) keyIDs() []ObjectID {
	d.lock.Lock()
	defer d.lock.Unlock()
	return slices.SortedFunc(maps.Keys(d.keys), func(a, b ObjectID) int { return bytes.Compare(a[:], b[:]) })
}

// takeKeys takes all keys from the device, and returns them.
func (d *softDevice) takeKeys() map[ObjectID]softKey {
	d.lock.Lock()
	defer d.lock.Unlock()
	taken := d.keys
	d.keys = map[ObjectID]softKey{}
	return taken
}

func (d *softDevice) putKeys(keys map[ObjectID]softKey) {
	d.lock.Lock()
	defer d.lock.Unlock()
	maps.Copy(d.keys, keys)
}
