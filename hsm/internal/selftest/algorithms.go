package selftest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// What a token may do wrong with a key that it made.
var (
	errResult  = errors.New("wrong result")
	errForgery = errors.New("took a forged ciphertext for a good one")
)

// quickRSA is the largest RSA key that a quick test makes, in bits.
const quickRSA = 2048

// algorithm tries a row with each of its recipes, until one works.
func (t *Tester) algorithm(row *algorithm.Algorithm) Algorithm {
	recipes := row.RecipesFor(t.mechanisms)
	a := Algorithm{Name: row.Name, Claimed: len(recipes) > 0}
	if !a.Claimed {
		a.Detail = "not in its list of mechanisms, or not for keys of that size"
	}
	if t.options.Quick && row.Bits > quickRSA {
		a.Detail, recipes = "not tried: it takes long", nil
	}
	for _, r := range recipes {
		key, err := t.key(row, r)
		if err == nil {
			err = t.use(row, key)
		}
		if err == nil {
			return Algorithm{Name: row.Name, Claimed: true, Works: true}
		}
		a.Detail = says(err)
		t.settle(err)
	}
	return a
}

// key makes a key, or takes an RSA key of the same kind that was made before.
func (t *Tester) key(row *algorithm.Algorithm, r algorithm.Recipe) (pair, error) {
	if r.KeyType != pkcs11.CKK_RSA {
		return t.make(row, r)
	}
	name := fmt.Sprint(row.Purpose, row.Bits)
	if key, ok := t.pairs[name]; ok {
		return key, nil
	}
	key, err := t.make(row, r)
	if err == nil {
		t.pairs[name] = key
	}
	return key, err
}

// use uses a key as its purpose wants, and checks the result in software.
func (t *Tester) use(row *algorithm.Algorithm, key pair) error {
	switch row.Purpose {
	case algorithm.Encrypt:
		return t.encrypt(key)
	case algorithm.MAC:
		return t.mac(row, key)
	}
	public, err := t.public(row, key)
	if err != nil {
		return err
	}
	switch row.Purpose {
	case algorithm.Sign:
		return t.sign(row, key, public)
	case algorithm.Decrypt:
		return t.decrypt(row.Hash, row.Bits, key, public)
	case algorithm.Agree:
		return t.agree(key, public)
	}
	return errors.New("purpose unknown to the self-test")
}

// public reads the public key from the token.
func (t *Tester) public(row *algorithm.Algorithm, key pair) (crypto.PublicKey, error) {
	values, err := t.session.Attributes(key.public, row.Attributes()...)
	if err != nil {
		return nil, err
	}
	return row.Read(values)
}

func (t *Tester) encrypt(key pair) error {
	iv, plaintext, aad := random(cryptoki.IVSize), random(48), random(20)
	given := bytes.Clone(iv)
	ciphertext, err := t.session.Encrypt(key.private, cryptoki.GCM(iv, aad), plaintext, len(plaintext)+cryptoki.TagSize)
	if err != nil {
		return err
	}
	if !bytes.Equal(iv, given) || len(ciphertext) != len(plaintext)+cryptoki.TagSize || bytes.Contains(ciphertext, plaintext) {
		return errResult
	}
	open := func(aad []byte) ([]byte, error) {
		return t.session.Decrypt(key.private, cryptoki.GCM(given, aad), ciphertext, len(ciphertext))
	}
	opened, err := open(aad)
	if err != nil {
		return err
	}
	if !bytes.Equal(opened, plaintext) {
		return errResult
	}
	if _, err := open(random(20)); err == nil {
		return errForgery
	}
	return nil
}

func (t *Tester) mac(row *algorithm.Algorithm, key pair) error {
	size, message := row.Hash.Size(), random(100)
	first, err := t.session.Sign(key.private, cryptoki.Plain(row.Use), message, size)
	if err != nil {
		return err
	}
	again, err := t.session.Sign(key.private, cryptoki.Plain(row.Use), message, size)
	if err != nil {
		return err
	}
	other, err := t.session.Sign(key.private, cryptoki.Plain(row.Use), random(100), size)
	if err != nil {
		return err
	}
	if len(first) != size || !bytes.Equal(first, again) || bytes.Equal(first, other) {
		return errResult
	}
	return nil
}

func (t *Tester) sign(row *algorithm.Algorithm, key pair, public crypto.PublicKey) error {
	data := random(33)
	if row.Hash != 0 {
		data = random(row.Hash.Size())
	}
	raw, err := t.session.Sign(key.private, row.Signing.Mechanism(), row.Signing.Input(data), row.Signing.Size())
	if err != nil {
		return err
	}
	signature, err := row.Signing.Encode(raw)
	if err != nil {
		return err
	}
	if !row.Signing.Verify(public, data, signature) {
		return errResult
	}
	return nil
}

func (t *Tester) decrypt(h crypto.Hash, bits int, key pair, public crypto.PublicKey) error {
	to, ok := public.(*rsa.PublicKey)
	if !ok {
		return errResult
	}
	secret := random(32)
	ciphertext, err := rsa.EncryptOAEP(h.New(), rand.Reader, to, secret, nil)
	if err != nil {
		return err
	}
	opened, err := t.session.Decrypt(key.private, cryptoki.OAEP(h, nil), ciphertext, bits/8)
	if err != nil {
		return err
	}
	if !bytes.Equal(opened, secret) {
		return errResult
	}
	return nil
}

func (t *Tester) agree(key pair, public crypto.PublicKey) error {
	theirs, ok := public.(*ecdh.PublicKey)
	if !ok {
		return errResult
	}
	ours, err := theirs.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	want, err := ours.ECDH(theirs)
	if err != nil {
		return err
	}
	got, err := t.session.Agree(key.private, pkcs11.CKM_ECDH1_DERIVE, ours.PublicKey().Bytes(), len(want))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errResult
	}
	return nil
}

// oaepHashes tries each hash with the smallest RSA key that works.
func (t *Tester) oaepHashes() []string {
	able := []string{}
	row, ok := algorithm.Lookup("RSA_OAEP_2048_SHA256")
	if !ok || len(row.RecipesFor(t.mechanisms)) == 0 {
		return able
	}
	key, err := t.key(row, row.Recipes[0])
	if err != nil {
		return able
	}
	public, err := t.public(row, key)
	if err != nil {
		return able
	}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		err := t.decrypt(h, row.Bits, key, public)
		if err == nil {
			able = append(able, fmt.Sprintf("SHA%d", map[crypto.Hash]int{crypto.SHA1: 1, crypto.SHA256: 256, crypto.SHA384: 384, crypto.SHA512: 512}[h]))
		}
		t.settle(err)
	}
	return able
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
