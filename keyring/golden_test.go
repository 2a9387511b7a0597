package keyring

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The golden file was made by the first release. Every later one opens it: a
// new algorithm adds lines (-update), no line is ever changed.
var update = flag.Bool("update", false, "add what testdata/golden.json lacks; never changes what it has")

const goldenFile = "testdata/golden.json"

type golden struct {
	Comment     string              `json:"comment"`
	Keys        map[string]hexBytes `json:"keys"` // material, by algorithm; RSA_n serves all of that size
	PublicKeys  []goldenPublicKey   `json:"public_keys"`
	Ciphertexts []goldenCiphertext  `json:"ciphertexts"`
	Signatures  []goldenSignature   `json:"signatures"`
	MACs        []goldenMAC         `json:"macs"`
	Asymmetric  []goldenAsymmetric  `json:"asymmetric"`
	Agreements  []goldenAgreement   `json:"agreements"`
}

type goldenPublicKey struct {
	Algorithm string          `json:"algorithm"`
	DER       hexBytes        `json:"der"`
	JWK       json.RawMessage `json:"jwk"`
}

type goldenCiphertext struct {
	Algorithm  string            `json:"algorithm"`
	Plaintext  hexBytes          `json:"plaintext"`
	AAD        hexBytes          `json:"aad,omitempty"`
	Context    map[string]string `json:"encryption_context,omitempty"`
	Ciphertext hexBytes          `json:"ciphertext"`
}

type goldenSignature struct {
	Algorithm     string   `json:"algorithm"`
	Message       hexBytes `json:"message"`
	Format        string   `json:"format"`
	Signature     hexBytes `json:"signature"`
	Deterministic bool     `json:"deterministic"`
}

type goldenMAC struct {
	Algorithm string   `json:"algorithm"`
	Message   hexBytes `json:"message"`
	Tag       hexBytes `json:"tag"`
}

type goldenAsymmetric struct {
	Algorithm  string   `json:"algorithm"`
	Plaintext  hexBytes `json:"plaintext"`
	Label      hexBytes `json:"label"`
	Ciphertext hexBytes `json:"ciphertext"`
}

type goldenAgreement struct {
	Algorithm string   `json:"algorithm"`
	Peer      hexBytes `json:"peer"`
	Secret    hexBytes `json:"secret"`
}

var loadGolden = sync.OnceValues(func() (*golden, error) {
	b, err := os.ReadFile(goldenFile)
	if err != nil {
		return nil, err
	}
	g := new(golden)
	return g, json.Unmarshal(b, g)
})

// goldenKeyName is the row's entry in the golden keys.
func goldenKeyName(a *Algorithm) string {
	if strings.HasPrefix(a.name, "RSA_") {
		return fmt.Sprintf("RSA_%d", a.keySize)
	}
	return a.name
}

func goldenMaterial(t testing.TB, a *Algorithm) Material {
	t.Helper()
	b, ok := must[*golden](t)(loadGolden()).Keys[goldenKeyName(a)]
	if !ok {
		t.Fatalf("no golden key for %s: run the tests with -update", a.name)
	}
	return NewMaterial(bytes.Clone(b))
}

func (c goldenCiphertext) aad(t testing.TB) AAD {
	t.Helper()
	if c.Context != nil {
		return ContextAAD(must[[]byte](t)(CanonicalContext(c.Context)))
	}
	return RawAAD(c.AAD)
}

var formats = map[string]Format{"DER": DER, "RAW": RAW, "JWS": JWS}

func TestGoldenCoversTheTable(t *testing.T) {
	if *update {
		updateGolden(t)
	}
	g := must[*golden](t)(loadGolden())
	for _, a := range Algorithms() {
		if !g.covers(a) {
			t.Errorf("%s has no golden data: run this test with -update", a.name)
		}
	}
}

func (g *golden) covers(a *Algorithm) bool {
	named := func(name string) bool { return name == a.name }
	switch a.purpose {
	case PurposeEncryptDecrypt:
		return slices.ContainsFunc(g.Ciphertexts, func(c goldenCiphertext) bool { return named(c.Algorithm) })
	case PurposeSignVerify:
		return slices.ContainsFunc(g.Signatures, func(s goldenSignature) bool { return named(s.Algorithm) })
	case PurposeMAC:
		return slices.ContainsFunc(g.MACs, func(m goldenMAC) bool { return named(m.Algorithm) })
	case PurposeAsymmetricDecrypt:
		return slices.ContainsFunc(g.Asymmetric, func(m goldenAsymmetric) bool { return named(m.Algorithm) })
	}
	return slices.ContainsFunc(g.Agreements, func(m goldenAgreement) bool { return named(m.Algorithm) })
}

func TestGoldenCiphertexts(t *testing.T) {
	for _, c := range must[*golden](t)(loadGolden()).Ciphertexts {
		t.Run(c.Algorithm, func(t *testing.T) {
			v := newTestVersion(t, row(t, c.Algorithm))
			got, err := v.Open(nil, c.Ciphertext, c.aad(t))
			if err != nil || !bytes.Equal(got, c.Plaintext) {
				t.Fatalf("opened to %x, %v", got, err)
			}
			if again, err := v.Seal(nil, c.Plaintext, c.aad(t)); v.algorithm.deterministic != bytes.Equal(again, c.Ciphertext) {
				t.Fatalf("sealed again to %x, %v", again, err)
			}
		})
	}
}

func TestGoldenSignatures(t *testing.T) {
	for _, s := range must[*golden](t)(loadGolden()).Signatures {
		t.Run(s.Algorithm+"/"+s.Format, func(t *testing.T) {
			v := newTestVersion(t, row(t, s.Algorithm))
			o := SignOptions{Format: formats[s.Format]}
			if err := v.Verify(s.Message, s.Signature, o); err != nil {
				t.Error(err)
			}
			again := must[[]byte](t)(v.Sign(s.Message, o))
			if bytes.Equal(again, s.Signature) != s.Deterministic {
				t.Errorf("signed again: %x", again)
			}
		})
	}
}

func TestGoldenMACs(t *testing.T) {
	for _, m := range must[*golden](t)(loadGolden()).MACs {
		t.Run(m.Algorithm, func(t *testing.T) {
			v := newTestVersion(t, row(t, m.Algorithm))
			if tag := must[[]byte](t)(v.MAC(m.Message)); !bytes.Equal(tag, m.Tag) {
				t.Errorf("tag is %x", tag)
			}
		})
	}
}

func TestGoldenPublicKeys(t *testing.T) {
	for _, p := range must[*golden](t)(loadGolden()).PublicKeys {
		t.Run(p.Algorithm, func(t *testing.T) {
			v := newTestVersion(t, row(t, p.Algorithm))
			if der := must[[]byte](t)(v.PublicKeyDER()); !bytes.Equal(der, p.DER) {
				t.Errorf("DER is %x", der)
			}
			if j := must[[]byte](t)(v.PublicKeyJWK("golden")); string(j) != compact(t, p.JWK) {
				t.Errorf("JWK is %s", j)
			}
		})
	}
}

func compact(t testing.TB, j json.RawMessage) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, j); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGoldenAsymmetric(t *testing.T) {
	for _, c := range must[*golden](t)(loadGolden()).Asymmetric {
		t.Run(c.Algorithm, func(t *testing.T) {
			v := newTestVersion(t, row(t, c.Algorithm))
			if got := must[[]byte](t)(v.DecryptAsymmetric(c.Ciphertext, c.Label)); !bytes.Equal(got, c.Plaintext) {
				t.Errorf("opened to %x", got)
			}
		})
	}
}

func TestGoldenAgreements(t *testing.T) {
	for _, c := range must[*golden](t)(loadGolden()).Agreements {
		t.Run(c.Algorithm, func(t *testing.T) {
			v := newTestVersion(t, row(t, c.Algorithm))
			if got := must[[]byte](t)(v.SharedSecret(c.Peer)); !bytes.Equal(got, c.Secret) {
				t.Errorf("secret is %x", got)
			}
		})
	}
}

// updateGolden adds what is missing.
func updateGolden(t *testing.T) {
	g, err := loadGolden()
	if err != nil {
		g = &golden{}
	}
	if g.Keys == nil {
		g.Keys = map[string]hexBytes{}
	}
	g.Comment = "Test data: these keys protect nothing. Every release opens all of it; lines are added, never changed."
	for _, a := range Algorithms() {
		if !g.covers(a) {
			g.add(t, a)
		}
	}
	b := must[[]byte](t)(json.MarshalIndent(g, "", " "))
	if err := os.WriteFile(goldenFile, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	loadGolden = sync.OnceValues(func() (*golden, error) { return g, nil })
}

func (g *golden) add(t *testing.T, a *Algorithm) {
	name := goldenKeyName(a)
	if g.Keys[name] == nil {
		g.Keys[name] = must[Material](t)(a.Generate(seeded("golden " + name))).Bytes()
	}
	v := must[*Version](t)(NewVersion(a, testKeyID, testVersion, NewMaterial(bytes.Clone(g.Keys[name]))))
	if a.purpose != PurposeEncryptDecrypt && a.purpose != PurposeMAC {
		der, j := must[[]byte](t)(v.PublicKeyDER()), must[[]byte](t)(v.PublicKeyJWK("golden"))
		g.PublicKeys = append(g.PublicKeys, goldenPublicKey{a.name, der, j})
	}
	map[Purpose]func(*testing.T, *Version){
		PurposeEncryptDecrypt:    g.addCiphertexts,
		PurposeSignVerify:        g.addSignatures,
		PurposeMAC:               g.addMACs,
		PurposeAsymmetricDecrypt: g.addAsymmetric,
		PurposeKeyAgreement:      g.addAgreement,
	}[a.purpose](t, v)
}

func (g *golden) addCiphertexts(t *testing.T, v *Version) {
	for _, c := range []goldenCiphertext{
		{},
		{Plaintext: []byte("a short secret")},
		{Plaintext: []byte("with raw AAD"), AAD: []byte("row 17")},
		{Plaintext: []byte("with a context"), Context: map[string]string{"tenant": "acme", "Straße": "42"}},
		{Plaintext: bytes.Repeat([]byte("long "), 100), AAD: bytes.Repeat([]byte("aad"), 200)},
	} {
		c.Algorithm = v.algorithm.name
		c.Ciphertext = must[[]byte](t)(v.Seal(nil, c.Plaintext, c.aad(t)))
		g.Ciphertexts = append(g.Ciphertexts, c)
	}
}

func (g *golden) addSignatures(t *testing.T, v *Version) {
	for _, format := range []string{"DER", "RAW", "JWS"} {
		s := goldenSignature{Algorithm: v.algorithm.name, Message: []byte("signed once, verified for ever"), Format: format}
		o := SignOptions{Format: formats[format]}
		s.Signature = must[[]byte](t)(v.Sign(s.Message, o))
		s.Deterministic = bytes.Equal(s.Signature, must[[]byte](t)(v.Sign(s.Message, o)))
		g.Signatures = append(g.Signatures, s)
	}
}

func (g *golden) addMACs(t *testing.T, v *Version) {
	for _, m := range []string{"", "a message"} {
		g.MACs = append(g.MACs, goldenMAC{v.algorithm.name, []byte(m), must[[]byte](t)(v.MAC([]byte(m)))})
	}
}

func (g *golden) addAsymmetric(t *testing.T, v *Version) {
	for _, label := range []string{"", "a label"} {
		c := goldenAsymmetric{Algorithm: v.algorithm.name, Plaintext: []byte("to the holder"), Label: []byte(label)}
		c.Ciphertext = encryptOAEP(t, v, c.Plaintext, c.Label)
		g.Asymmetric = append(g.Asymmetric, c)
	}
}

func (g *golden) addAgreement(t *testing.T, v *Version) {
	peer := must[Material](t)(v.algorithm.Generate(seeded("peer")))
	p := must[*Version](t)(NewVersion(v.algorithm, 1, 1, peer))
	c := goldenAgreement{Algorithm: v.algorithm.name, Peer: must[[]byte](t)(p.PublicKeyDER())}
	c.Secret = must[[]byte](t)(v.SharedSecret(c.Peer))
	g.Agreements = append(g.Agreements, c)
}

// encryptOAEP is what a client does with the public key.
func encryptOAEP(t testing.TB, v *Version, plaintext, label []byte) []byte {
	t.Helper()
	key := must[crypto.PublicKey](t)(v.PublicKey()).(*rsa.PublicKey)
	return must[[]byte](t)(rsa.EncryptOAEP(v.algorithm.hash.New(), rand.Reader, key, plaintext, label))
}
