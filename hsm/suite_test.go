package hsm_test

import (
	"bytes"
	_ "crypto/sha1" //nolint:gosec // RSA-OAEP, where a token does no other hash
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keywright/keywright/hsm"
)

// suite is what is asked of every token, whatever the module. A device cannot do
// everything: what it refuses as it should is reported, not skipped.
type suite struct {
	device *hsm.Device
	cannot []string // one line for each thing, with the reason
}

// runSuite runs the suite on a device and returns what it cannot do.
func runSuite(t *testing.T, config hsm.Config) []string {
	t.Helper()
	s := &suite{device: open(t, config)}
	if s.device.Status().Capabilities.RootWrap {
		root, err := s.device.GenerateRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		refusesForgeries(t, s.device, root, wrap(t, s.device, root, "secret"))
	} else {
		_, err := s.device.GenerateRoot(t.Context())
		want(t, err, hsm.ErrNoWrapMechanism, hsm.ClassCaller)
		s.cannot = append(s.cannot, "root key: no AES-GCM, AES-KW or RSA-OAEP")
	}
	for _, name := range residentAlgorithms() {
		t.Run(name, func(t *testing.T) { s.algorithm(t, name) })
	}
	t.Run("unknown algorithm", s.unknownAlgorithm)
	t.Run("many at once", s.manyAtOnce)
	if err := s.device.Probe(t.Context()); err != nil {
		t.Errorf("Probe after the suite: %v", err)
	}
	for _, line := range s.cannot {
		t.Logf("cannot: %s", line)
	}
	return s.cannot
}

// TestDeviceSuite runs the suite on SoftHSM2, or on the token that the environment
// names, as .ci/device does.
func TestDeviceSuite(t *testing.T) {
	module := os.Getenv("KEYWRIGHT_DEVICE_MODULE")
	if module != "" {
		runSuite(t, hsm.Config{
			Module: module, InitArgs: os.Getenv("KEYWRIGHT_DEVICE_INIT_ARGS"), TokenLabel: os.Getenv("KEYWRIGHT_DEVICE_LABEL"),
			PIN: hsm.PINFromFile(os.Getenv("KEYWRIGHT_DEVICE_PIN_FILE")),
		})
		return
	}
	_, token := fresh(t)
	cannot := runSuite(t, configFor(token))
	for _, line := range cannot { // SoftHSM2 2.6.1: OAEP with SHA-1 alone
		if !strings.HasPrefix(line, "RSA_OAEP_") || strings.HasPrefix(line, "RSA_OAEP_3072_SHA1") {
			t.Errorf("SoftHSM2 can do more: %s", line)
		}
	}
}

// residentAlgorithms are the names of keyring's table that PKCS#11 can do, and one
// that wraps keys for import.
func residentAlgorithms() []string {
	names := []string{
		"AES_256_GCM", "AES_128_GCM", "HMAC_SHA256", "HMAC_SHA384", "HMAC_SHA512",
		"ECDSA_P256_SHA256", "ECDSA_P384_SHA384", "ECDSA_P521_SHA512", "ED25519",
		"ECDH_P256", "ECDH_P384", "X25519", "RSA_OAEP_3072_SHA1",
	}
	for _, scheme := range []string{"RSA_PSS", "RSA_PKCS1", "RSA_OAEP"} {
		for _, bits := range []int{2048, 3072, 4096} {
			for _, hash := range []int{256, 384, 512} {
				names = append(names, fmt.Sprintf("%s_%d_SHA%d", scheme, bits, hash))
			}
		}
	}
	return names
}

// manyAtOnce makes keys while others are made, found and destroyed. Each call makes
// one key or none: a module that is not up to its threads may make two.
func (s *suite) manyAtOnce(t *testing.T) {
	able := s.device.Status().Capabilities.Keys
	i := slices.IndexFunc(able, func(name string) bool { return !strings.HasPrefix(name, "RSA") }) // which take seconds
	if i < 0 {
		s.cannot = append(s.cannot, "many at once: no algorithm that makes keys quickly")
		return
	}
	before, err := s.device.ListKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 4 {
				s.oneOfMany(t, able[i])
			}
		})
	}
	wg.Wait()
	after, err := s.device.ListKeys(t.Context())
	if err != nil || len(after) != len(before) {
		t.Errorf("%d keys are left on the token, want %d: %v", len(after), len(before), err)
	}
}

// oneOfMany makes a key, finds it (each destruction forgets the handles of all) and
// destroys it.
func (s *suite) oneOfMany(t *testing.T, name string) {
	id := newID()
	if _, err := s.device.GenerateKey(t.Context(), id, name); err != nil {
		t.Error(err)
		return
	}
	if _, err := s.device.FindKey(t.Context(), id, name); err != nil {
		t.Error(err)
	}
	if err := s.device.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// algorithm makes a key, uses it, finds it and destroys it.
func (s *suite) algorithm(t *testing.T, name string) {
	if !slices.Contains(s.device.Status().Capabilities.Keys, name) {
		_, err := s.device.GenerateKey(t.Context(), newID(), name)
		s.refuses(t, name, err)
		return
	}
	key, err := s.make(t, name)
	if errors.Is(err, hsm.ErrAlgorithm) {
		s.refuses(t, name, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	works(t, s.device, key)
	s.refusesOtherUses(t, key)
	s.lives(t, key)
	if material, ok := materialFor(t, name); ok {
		s.imports(t, name, material)
	}
}

// make generates a key, and checks what the token says about it. Making RSA keys
// takes long: those of one scheme and size differ in the hash alone, which the token
// does not know before it is used, so only the first is made in the token.
func (s *suite) make(t *testing.T, name string) (hsm.Key, error) {
	t.Helper()
	id := newID()
	if strings.HasPrefix(name, "RSA") && (strings.HasSuffix(name, "384") || strings.HasSuffix(name, "512")) {
		material, _ := materialFor(t, name)
		key, err := s.device.ImportKey(t.Context(), id, name, material)
		if !errors.Is(err, hsm.ErrAlgorithm) {
			return key, err
		}
	}
	key, err := s.device.GenerateKey(t.Context(), id, name)
	if err == nil && (key.ID != id || key.Algorithm != name) {
		t.Errorf("generated %s of %s", key.ID, key.Algorithm)
	}
	if err == nil && key.Origin != (hsm.Origin{Local: true, NeverExtractable: true, AlwaysSensitive: true}) {
		s.cannot = append(s.cannot, fmt.Sprintf("say where a key of %s comes from: %+v", name, key.Origin))
	}
	return key, err
}

// refuses checks the error of what a token cannot do, and reports it.
func (s *suite) refuses(t *testing.T, name string, err error) {
	t.Helper()
	want(t, err, hsm.ErrAlgorithm, hsm.ClassCaller)
	for _, can := range s.device.Status().Capabilities.Keys {
		if can != name && !strings.Contains(err.Error(), can) {
			t.Errorf("error does not list %s: %v", can, err)
		}
	}
	_, reason, _ := strings.Cut(err.Error(), "those that it can: ")
	if _, reason, _ = strings.Cut(reason, ": "); reason == "" {
		reason = "not among its capabilities"
	}
	s.cannot = append(s.cannot, name+": "+reason)
}

// refusesOtherUses tries each use that is not the key's.
func (s *suite) refusesOtherUses(t *testing.T, key hsm.Key) {
	t.Helper()
	own := usesOf(key.Algorithm)
	for use := hsm.UseEncrypt; use <= hsm.UseAgree+1; use++ {
		if slices.Contains(own, use) {
			continue
		}
		_, err := s.device.UseKey(t.Context(), key.ID, key.Algorithm, use, make([]byte, 64), nil)
		want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	}
	_, err := s.device.UseKey(t.Context(), key.ID, "AES_192_GCM", own[0], make([]byte, 64), nil)
	want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
}

// lives follows a key through its life: taken id, found, listed, destroyed.
func (s *suite) lives(t *testing.T, key hsm.Key) {
	t.Helper()
	ctx := t.Context()
	_, err := s.device.GenerateKey(ctx, key.ID, key.Algorithm)
	want(t, err, hsm.ErrDuplicateObject, hsm.ClassCaller)
	found, err := s.device.FindKey(ctx, key.ID, key.Algorithm)
	if err != nil || !bytes.Equal(found.PublicKey, key.PublicKey) || found.Origin != key.Origin {
		t.Fatalf("FindKey: %v, origin %+v; want that of %s, %+v", err, found.Origin, key.ID, key.Origin)
	}
	if !listed(t, s.device, key.ID) {
		t.Error("not listed")
	}
	if err := s.device.Destroy(ctx, key.ID); err != nil {
		t.Fatal(err)
	}
	if listed(t, s.device, key.ID) {
		t.Error("listed after it was destroyed")
	}
	_, err = s.device.FindKey(ctx, key.ID, key.Algorithm)
	want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
	_, err = s.device.UseKey(ctx, key.ID, key.Algorithm, usesOf(key.Algorithm)[0], make([]byte, 64), nil)
	want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
}

// imports puts a key from outside into the token and compares what both make.
func (s *suite) imports(t *testing.T, name string, material []byte) {
	t.Helper()
	id := newID()
	key, err := s.device.ImportKey(t.Context(), id, name, material)
	if errors.Is(err, hsm.ErrAlgorithm) {
		s.refuses(t, "import of "+name, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if key.Origin.Local || key.Origin.NeverExtractable {
		s.cannot = append(s.cannot, fmt.Sprintf("say where an imported key of %s comes from: %+v", name, key.Origin))
	}
	if want := publicOf(t, name, material); !bytes.Equal(want, key.PublicKey) {
		t.Errorf("public key %x, want %x", key.PublicKey, want)
	}
	works(t, s.device, key)
	agrees(t, s.device, key, material)
	if err := s.device.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, {1}, material[1:], append(bytes.Clone(material), 0)} {
		_, err := s.device.ImportKey(t.Context(), newID(), name, bad)
		want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	}
}

func (s *suite) unknownAlgorithm(t *testing.T) {
	for _, name := range []string{"", "AES_256_ECB", "XAES_256_GCM", "aes_256_gcm"} {
		_, err := s.device.GenerateKey(t.Context(), newID(), name)
		want(t, err, hsm.ErrAlgorithm, hsm.ClassCaller)
		_, err = s.device.ImportKey(t.Context(), newID(), name, make([]byte, 32))
		want(t, err, hsm.ErrAlgorithm, hsm.ClassCaller)
		_, err = s.device.FindKey(t.Context(), newID(), name)
		want(t, err, hsm.ErrAlgorithm, hsm.ClassCaller)
	}
}
