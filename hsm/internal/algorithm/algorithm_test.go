package algorithm

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// softKey signs as a token does: raw, over what Input returns.
type softKey struct {
	private crypto.Signer
	sign    func(input []byte) []byte
}

// softKeys has a key for each signing row but the larger RSA ones, which differ in
// their size alone.
func softKeys(t *testing.T, row *Algorithm) (softKey, bool) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	switch family := row.family.(type) {
	case edwardsPair:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		must(err)
		return softKey{key, func(input []byte) []byte { return ed25519.Sign(key, input) }}, true
	case ecdsaPair:
		key, err := ecdsa.GenerateKey(family.curve, rand.Reader)
		must(err)
		return softKey{key, func(input []byte) []byte {
			r, s, err := ecdsa.Sign(rand.Reader, key, input)
			must(err)
			raw := make([]byte, row.Signing.Size())
			r.FillBytes(raw[:len(raw)/2])
			s.FillBytes(raw[len(raw)/2:])
			return raw
		}}, true
	}
	if row.Bits != 2048 {
		return softKey{}, false
	}
	key, err := rsa.GenerateKey(rand.Reader, row.Bits)
	must(err)
	if row.Use == pkcs11.CKM_RSA_PKCS { // the DigestInfo is there already
		return softKey{key, func(input []byte) []byte {
			s, err := rsa.SignPKCS1v15(nil, key, 0, input)
			must(err)
			return s
		}}, true
	}
	return softKey{key, func(input []byte) []byte {
		s, err := rsa.SignPSS(rand.Reader, key, row.Hash, input, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		must(err)
		return s
	}}, true
}

func TestSigning(t *testing.T) {
	for _, row := range All() {
		if row.Purpose != Sign {
			continue
		}
		key, ok := softKeys(t, row)
		if !ok {
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			data := make([]byte, 32)
			if row.Hash != 0 {
				data = make([]byte, row.Hash.Size())
			}
			public, s := key.private.Public(), row.Signing
			for range 50 { // leading zeros of R and S come up
				encoded, err := s.Encode(key.sign(s.Input(data)))
				if err != nil || !s.Verify(public, data, encoded) {
					t.Fatalf("a good signature does not verify (%v)", err)
				}
				encoded[len(encoded)-1] ^= 1
				if s.Verify(public, data, encoded) {
					t.Fatal("a changed signature verifies")
				}
			}
			if s.Verify(crypto.PublicKey("no key"), data, make([]byte, s.Size())) {
				t.Fatal("verifies under no key")
			}
		})
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range All() {
		if seen[row.Name] {
			t.Errorf("%s stands in the table twice", row.Name)
		}
		seen[row.Name] = true
		if got, ok := Lookup(row.Name); !ok || got != row {
			t.Errorf("%s is not found", row.Name)
		}
	}
	if _, ok := Lookup("AES_256_ECB"); ok {
		t.Error("found what is not there")
	}
}

// A point may come as an OCTET STRING or bare; a bare one may look like an OCTET
// STRING.
func TestPoint(t *testing.T) {
	row, _ := Lookup(ECDSAP256)
	var key *ecdsa.PrivateKey
	var point []byte
	for len(point) == 0 || point[1] != byte(len(point)-2) { // one in 256
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
		if point, err = key.PublicKey.Bytes(); err != nil {
			t.Fatal(err)
		}
	}
	wrapped, err := asn1.Marshal(point)
	if err != nil {
		t.Fatal(err)
	}
	for name, attribute := range map[string][]byte{"wrapped": wrapped, "bare": point} {
		got, err := row.Read([][]byte{p256Params, attribute})
		if err != nil || !key.PublicKey.Equal(got) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, values := range map[string][][]byte{
		"curve": {p384Params, point}, "short": {p256Params, point[1:]}, "none": {nil, nil}, "long": {p256Params, append(wrapped, 0)},
	} {
		if _, err := row.Read(values); !errors.Is(err, ErrOther) {
			t.Errorf("%s: error = %v, want ErrOther", name, err)
		}
	}
	off := bytes.Clone(point)
	off[40] ^= 1
	if _, err := row.Read([][]byte{p256Params, off}); err == nil {
		t.Error("took a point that is not on the curve")
	}
}

func TestReadRSA(t *testing.T) {
	row, _ := Lookup("RSA_PSS_2048_SHA256")
	modulus := new(big.Int).SetBit(big.NewInt(1), 2047, 1).Bytes()
	got, err := row.Read([][]byte{append([]byte{0}, modulus...), {1, 0, 1}}) // some tokens pad
	if public, ok := got.(*rsa.PublicKey); err != nil || !ok || public.E != 65537 {
		t.Fatalf("%v, %v", got, err)
	}
	for name, values := range map[string][][]byte{
		"short": {modulus[1:], {1, 0, 1}}, "even": {modulus, {2}}, "one": {modulus, {1}},
		"huge": {modulus, bytes.Repeat([]byte{0xff}, 9)}, "none": {nil, nil},
	} {
		if _, err := row.Read(values); !errors.Is(err, ErrOther) {
			t.Errorf("%s: error = %v, want ErrOther", name, err)
		}
	}
}

// A key of each kind is refused by the rows of all others.
func TestMaterialOfAnotherAlgorithm(t *testing.T) {
	_, ed, err1 := ed25519.GenerateKey(rand.Reader)
	p256, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, err3 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	x, err4 := ecdh.X25519().GenerateKey(rand.Reader)
	weak, err5 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	fits := map[string]any{"ED25519": ed, "_P256": p256, "_P384": p384, "X25519": x, "_2048_": weak}
	for prefix, key := range fits {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range All() {
			if !row.Pair() {
				continue // bytes are bytes
			}
			_, err := row.Import([16]byte{1}, "label", row.Recipes[0], der)
			if fit := strings.Contains(row.Name, prefix); fit != (err == nil) || err != nil && !errors.Is(err, ErrMaterial) {
				t.Errorf("a key of %s as %s: %v", prefix, row.Name, err)
			}
			if _, err := row.Import([16]byte{1}, "label", row.Recipes[0], append(bytes.Clone(der), 0)); !errors.Is(err, ErrMaterial) {
				t.Errorf("%s takes what follows a key", row.Name)
			}
		}
	}
}

// Wiping what was imported leaves the table as it is.
func TestWipe(t *testing.T) {
	for _, name := range []string{ECDSAP256, "X25519", AES256GCM} {
		row, _ := Lookup(name)
		material := bytes.Repeat([]byte{7}, 32)
		switch name {
		case ECDSAP256:
			key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			material, _ = x509.MarshalPKCS8PrivateKey(key)
		case "X25519":
			key, _ := ecdh.X25519().GenerateKey(rand.Reader)
			material, _ = x509.MarshalPKCS8PrivateKey(key)
		}
		kept := bytes.Clone(material)
		id := [16]byte{7}
		imported, err := row.Import(id, "label", row.Recipes[0], material)
		if err != nil {
			t.Fatal(err)
		}
		imported.Wipe()
		for _, a := range imported.Private {
			if len(bytes.Trim(a.Value, "\x00")) != 0 {
				t.Errorf("%s: attribute %#x is left", name, a.Type)
			}
		}
		again, err := row.Import(id, "label", row.Recipes[0], material)
		if err != nil || !bytes.Equal(kept, material) || id != [16]byte{7} {
			t.Errorf("%s: wiping did harm: %v", name, err)
		}
		if len(bytes.Trim(again.Private[0].Value, "\x00")) == 0 {
			t.Errorf("%s: nothing to import", name)
		}
	}
	if p256Params[0] != 0x06 || x25519Params[0] != 0x06 {
		t.Error("the table was wiped")
	}
}

func TestPeer(t *testing.T) {
	row, _ := Lookup("X25519")
	for _, low := range [][]byte{make([]byte, 32), append([]byte{1}, make([]byte, 31)...)} {
		if _, ok := row.Peer(low); ok {
			t.Errorf("took the point of low order %x", low)
		}
	}
	if _, ok := row.Peer(append([]byte{9}, make([]byte, 31)...)); !ok {
		t.Error("refused the base point")
	}
	aes, _ := Lookup(AES256GCM)
	if _, ok := aes.Peer(make([]byte, 32)); ok {
		t.Error("a cipher has peers")
	}
}

func TestRecipesFor(t *testing.T) {
	row, _ := Lookup("RSA_PSS_4096_SHA256")
	generate := func(sizes cryptoki.KeySizes) map[uint]cryptoki.KeySizes {
		return map[uint]cryptoki.KeySizes{pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN: sizes, pkcs11.CKM_RSA_PKCS_PSS: {}}
	}
	for sizes, want := range map[cryptoki.KeySizes]int{{Min: 1024, Max: 4096}: 1, {}: 1, {Min: 1024, Max: 2048}: 0, {Min: 8192, Max: 16384}: 0} {
		if got := len(row.RecipesFor(generate(sizes))); got != want {
			t.Errorf("%+v: %d recipes, want %d", sizes, got, want)
		}
	}
	if len(row.RecipesFor(map[uint]cryptoki.KeySizes{pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN: {}})) != 0 {
		t.Error("keys that could not be used")
	}
	aes, _ := Lookup(AES256GCM) // sizes in bytes or in bits
	for _, sizes := range []cryptoki.KeySizes{{Min: 16, Max: 32}, {Min: 128, Max: 256}} {
		if len(aes.RecipesFor(map[uint]cryptoki.KeySizes{pkcs11.CKM_AES_KEY_GEN: sizes, pkcs11.CKM_AES_GCM: sizes})) != 1 {
			t.Errorf("no AES with %+v", sizes)
		}
	}
}
