package kms

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
)

// softDevice stands in for the token in this package's tests, which need no cgo:
// AES-256-GCM under keys in memory. The real token is used in the tests of hsm,
// server and cmd.
type softDevice struct {
	lock    sync.Mutex
	roots   map[ObjectID][]byte
	signers map[ObjectID]ed25519.PrivateKey
	keys    map[ObjectID]softKey
	known   map[ObjectID]bool // signers and keys made or found since it was opened: only these are used, as on a token
	fault   deviceFault
	late    func()
	made    int // keys
	finds   int // of keys
	away    bool
	oaep256 bool // it makes wrapping keys whose OAEP has SHA-256, and not SHA-1 alone
	noSign  bool
	unwraps int
}

var errAway = errors.New("device removed")

func newDevice() *softDevice {
	return &softDevice{roots: map[ObjectID][]byte{}, signers: map[ObjectID]ed25519.PrivateKey{}, keys: map[ObjectID]softKey{}}
}

// reopen has the device know of no signer and no key until it is found.
func (d *softDevice) reopen() {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.known = nil
}

// know notes a signer or a key. The caller holds the lock.
func (d *softDevice) know(id ObjectID) {
	if d.known == nil {
		d.known = map[ObjectID]bool{}
	}
	d.known[id] = true
}

// putBack has the device hold signers again that were removed.
func (d *softDevice) putBack(signers map[ObjectID]ed25519.PrivateKey) {
	d.lock.Lock()
	defer d.lock.Unlock()
	maps.Copy(d.signers, signers)
}

func (d *softDevice) setAway(away bool) {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.away = away
}

func (d *softDevice) call() (func(), error) {
	d.lock.Lock()
	if d.away {
		d.lock.Unlock()
		return nil, errAway
	}
	return d.lock.Unlock, nil
}

func (d *softDevice) GenerateRoot(_ context.Context, id ObjectID) (check []byte, err error) {
	done, err := d.call()
	if err != nil {
		return nil, err
	}
	defer done()
	if _, taken := d.roots[id]; taken {
		return nil, errors.New("the id is taken")
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	d.roots[id] = secret
	return checkValue(secret), nil
}

func checkValue(secret []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("check"))
	return h.Sum(nil)[:8]
}

func (d *softDevice) FindRoot(_ context.Context, id ObjectID, check []byte) error {
	done, err := d.call()
	if err != nil {
		return err
	}
	defer done()
	if secret, ok := d.roots[id]; !ok || !bytes.Equal(checkValue(secret), check) {
		return ErrWrongToken
	}
	return nil
}

func (d *softDevice) aead(id ObjectID) (cipher.AEAD, error) {
	secret, ok := d.roots[id]
	if !ok {
		return nil, errors.New("root key not found")
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (d *softDevice) Wrap(_ context.Context, id ObjectID, _ uint32, secret, aad []byte) ([]byte, error) {
	done, err := d.call()
	if err != nil {
		return nil, err
	}
	defer done()
	aead, err := d.aead(id)
	if err != nil {
		return nil, err
	}
	return aead.Seal(id[:], nil, secret, aad), nil
}

func (d *softDevice) Unwrap(_ context.Context, blob, aad []byte) ([]byte, error) {
	done, err := d.call()
	if err != nil {
		return nil, err
	}
	defer done()
	d.unwraps++
	if len(blob) < 16 {
		return nil, ErrUnwrap
	}
	aead, err := d.aead(ObjectID(blob[:16]))
	if err != nil {
		return nil, ErrUnwrap
	}
	secret, err := aead.Open(nil, nil, blob[16:], aad)
	if err != nil {
		return nil, ErrUnwrap
	}
	return secret, nil
}

func (d *softDevice) Random(_ context.Context, n int) ([]byte, error) {
	done, err := d.call()
	if err != nil {
		return nil, err
	}
	defer done()
	b := make([]byte, n)
	rand.Read(b)
	return b, nil
}

func (d *softDevice) GenerateSigner(context.Context) (Signer, error) {
	done, err := d.call()
	if err != nil {
		return Signer{}, err
	}
	defer done()
	if d.noSign {
		return Signer{}, ErrNoSigningMechanism
	}
	var id ObjectID
	rand.Read(id[:])
	public, private, err := ed25519.GenerateKey(rand.Reader)
	d.signers[id] = private
	d.know(id)
	return Signer{ID: id, Algorithm: "ED25519", Public: public}, err
}

func (d *softDevice) FindSigner(_ context.Context, id ObjectID) (Signer, error) {
	done, err := d.call()
	if err != nil {
		return Signer{}, err
	}
	defer done()
	key, ok := d.signers[id]
	if !ok {
		return Signer{}, errors.New("signer not found")
	}
	d.know(id)
	return Signer{ID: id, Algorithm: "ED25519", Public: key.Public()}, nil
}

func (d *softDevice) Sign(_ context.Context, id ObjectID, message []byte) ([]byte, error) {
	done, err := d.call()
	if err != nil {
		return nil, err
	}
	defer done()
	key, ok := d.signers[id]
	if !ok || !d.known[id] {
		return nil, errors.New("signer not found")
	}
	return ed25519.Sign(key, message), nil
}

func (d *softDevice) Destroy(_ context.Context, id ObjectID) error {
	done, err := d.call()
	if err != nil {
		return err
	}
	defer done()
	delete(d.roots, id)
	delete(d.signers, id)
	delete(d.keys, id)
	return nil
}

func (d *softDevice) Probe(context.Context) error {
	done, err := d.call()
	if err == nil {
		done()
	}
	return err
}

func (d *softDevice) Status() HSMStatus {
	d.lock.Lock()
	defer d.lock.Unlock()
	return HSMStatus{Healthy: !d.away, TokenLabel: "soft", KeyAlgorithms: d.algorithms()}
}

// algorithms are those of keyring's table that it makes keys of.
func (d *softDevice) algorithms() []string {
	able := slices.Collect(maps.Keys(softAlgorithms))
	if d.oaep256 {
		able = append(able, d.wrapping())
	}
	return able
}

func (d *softDevice) objects() int {
	d.lock.Lock()
	defer d.lock.Unlock()
	return len(d.roots) + len(d.signers)
}

var _ HSM = (*softDevice)(nil)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// save writes the device's objects to a file, for another process to load.
func (d *softDevice) save(path string) error {
	d.lock.Lock()
	defer d.lock.Unlock()
	b, err := json.Marshal(savedDevice{d.roots, d.signers, d.keys})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

type savedDevice struct {
	Roots   map[ObjectID][]byte
	Signers map[ObjectID]ed25519.PrivateKey
	Keys    map[ObjectID]softKey
}

func loadDevice(path string) (*softDevice, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var saved savedDevice
	err = json.Unmarshal(b, &saved)
	return &softDevice{roots: saved.Roots, signers: saved.Signers, keys: saved.Keys}, err
}
