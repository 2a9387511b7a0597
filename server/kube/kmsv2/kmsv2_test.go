package kmsv2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v2 "k8s.io/kms/apis/v2"
)

// key is a Backend that puts the head of a native ciphertext before the plaintext.
type key struct {
	version  uint32
	overhead int
	fails    error
	slow     bool
	garbles  bool
}

func (k *key) Encrypt(ctx context.Context, plaintext []byte) ([]byte, error) {
	if k.slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	head := append([]byte{formatNative}, 0x8c, 0x1f, 0x0a, 0x55, 0xd3, 0xb2, 0xe9, 0x77)
	head = binary.BigEndian.AppendUint32(head, k.version)
	return append(append(head, plaintext...), make([]byte, k.overhead)...), k.fails
}

func (k *key) Decrypt(_ context.Context, ciphertext []byte) ([]byte, error) {
	if k.garbles {
		return []byte("something else"), nil
	}
	if len(ciphertext) < headBytes+k.overhead {
		return nil, errors.New("decryption failed")
	}
	return ciphertext[headBytes : len(ciphertext)-k.overhead], k.fails
}

func TestKeyID(t *testing.T) {
	ciphertext, _ := (&key{version: 1 << 31}).Encrypt(t.Context(), []byte("x"))
	if id, ok := KeyID(ciphertext); !ok || id != "id:8c1f0a55d3b2e977:2147483648" {
		t.Errorf("%q, %v", id, ok)
	}
	for _, other := range [][]byte{nil, ciphertext[:headBytes], append([]byte{2}, ciphertext[1:]...)} {
		if id, ok := KeyID(other); ok || id != "" {
			t.Errorf("%x is named %q", other, id)
		}
	}
}

func TestStatus(t *testing.T) {
	var log bytes.Buffer
	s := New(slog.New(slog.NewTextHandler(&log, nil)))
	for _, test := range []struct {
		name         string
		key          key
		healthz, log string
	}{
		{"well", key{version: 3}, "ok", "can be used"},
		{"still well", key{version: 4}, "ok", ""},
		{"away", key{fails: status.Error(codes.Unavailable, "cannot reach\nthe server")}, "cannot reach the server", "cannot be used"},
		{"still away", key{fails: errors.New("cannot reach the server")}, "cannot reach the server", ""},
		{"without a reason", key{fails: status.Error(codes.Internal, "")}, "the key cannot be used: Internal", "Internal"},
		{"a strange reason", key{fails: errors.New("ok")}, "the key cannot be used: Unknown", "Unknown"},
		{"slow", key{slow: true}, "the key did not answer within 2s", "within 2s"},
		{"wrong", key{garbles: true}, "what was encrypted is not what came back when it was decrypted", "came back"},
		{"large", key{overhead: 1024}, "plaintext has 41 bytes, whose ciphertext has 1078; the limit is 1024", "1078"},
		{"well again", key{version: 4}, "ok", "can be used"},
	} {
		log.Reset()
		began := time.Now()
		answer, err := s.Status(t.Context(), &test.key, &v2.StatusRequest{})
		if err != nil || answer.Version != "v2" || answer.Healthz != test.healthz || (answer.KeyId != "") != (test.healthz == "ok") {
			t.Errorf("%s: %v, %v", test.name, answer, err)
		}
		if (log.Len() > 0) != (test.log != "") || !strings.Contains(log.String(), test.log) {
			t.Errorf("%s is logged as %q", test.name, log.String())
		}
		if took := time.Since(began); took > 3*time.Second { // then the API server gives up
			t.Errorf("%s took %v", test.name, took)
		}
	}
	long, _ := s.Status(t.Context(), &key{fails: errors.New(strings.Repeat("ü", 5000))}, nil)
	if n := len(long.Healthz); n > maxReason || n < maxReason-1 {
		t.Errorf("a reason of %d bytes", n)
	}
}

func TestEncryptAndDecrypt(t *testing.T) {
	s, k := New(slog.New(slog.DiscardHandler)), &key{version: 1, overhead: 16}
	e, err := s.Encrypt(t.Context(), k, &v2.EncryptRequest{Plaintext: []byte("seed")})
	if err != nil || len(e.Annotations) > 0 {
		t.Fatal(e, err)
	}
	k.version = 2
	d, err := s.Decrypt(t.Context(), k, &v2.DecryptRequest{Ciphertext: e.Ciphertext, KeyId: e.KeyId})
	if err != nil || string(d.Plaintext) != "seed" {
		t.Errorf("%v, %v", d, err)
	}
	_, err = s.Encrypt(t.Context(), k, &v2.EncryptRequest{Plaintext: make([]byte, MaxCiphertextBytes-headBytes-16)})
	if err != nil {
		t.Error(err)
	}
	_, err = s.Encrypt(t.Context(), k, &v2.EncryptRequest{Plaintext: make([]byte, MaxCiphertextBytes-headBytes-15)})
	if status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}

func TestCheckAnnotations(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	domain := strings.Join([]string{label63, label63, label63, label63[:61]}, ".") // 253 bytes
	for name, ok := range map[string]bool{
		"a.b": true, "a.b.": true, "encrypted-kek.kms.example.com": true, "0.1": true, domain: true, domain + ".": true,
		"": false, ".": false, "a": false, "a.": false, ".a": false, "a..b": false, "A.b": false, "a_b.c": false, "-a.b": false, "a-.b": false,
		"a.b ": false, "ü.de": false, label63 + "a.b": false, "a" + domain: false, "a.b..": false,
	} {
		if err := checkAnnotations(map[string][]byte{name: nil}); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	full := map[string][]byte{"a.b": make([]byte, 16<<10-3), "c.d": make([]byte, 16<<10-3)}
	if err := checkAnnotations(full); err != nil {
		t.Error(err)
	}
	full["e.f"] = nil
	if err := checkAnnotations(full); status.Code(err) != codes.InvalidArgument {
		t.Errorf("annotations of 32771 bytes: %v", err)
	}
}

func TestRequestID(t *testing.T) {
	for uid, want := range map[string]string{
		"4f6b2f5e-0000-4000-8000-000000000001": "4f6b2f5e-0000-4000-8000-000000000001",
		"":                                     "", "a b": "", "a\nb": "", strings.Repeat("a", 65): "",
	} {
		if got := RequestID(uid); got != want {
			t.Errorf("%q becomes %q", uid, got)
		}
	}
	if a, b := StatusRequestID(), StatusRequestID(); a == b || RequestID(a) != a || !strings.HasPrefix(a, "kube-status-") {
		t.Errorf("%q, %q", a, b)
	}
}
