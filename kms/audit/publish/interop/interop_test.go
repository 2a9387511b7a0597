// Package interop tries checkpoints and their publishing with the witness and the
// note formats of transparency-dev, which are what public witnesses run.
package interop

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	f_log "github.com/transparency-dev/formats/log"
	f_note "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/witness/persistence/inmemory"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/publish"
)

const origin = "keywright/00112233445566778899aabbccddeeff"

type memory struct{ private crypto.Signer }

func (m memory) Sign(_ context.Context, message []byte) ([]byte, error) {
	if _, ok := m.private.(ed25519.PrivateKey); ok {
		return m.private.Sign(nil, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return m.private.Sign(rand.Reader, sum[:], crypto.SHA256)
}

func newKey(t *testing.T, private crypto.Signer) checkpoint.Key {
	t.Helper()
	key, err := checkpoint.NewKey(origin, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signers(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"Ed25519": ed, "ECDSA": ec}
}

func grow(t *testing.T, l *audit.Log, lines int, what string, key checkpoint.Key, private crypto.Signer) (signed []byte, size uint64) {
	t.Helper()
	for i := range lines {
		if _, err := l.Append(&audit.Entry{RequestID: fmt.Sprint(what, i)}, audit.Hot); err != nil {
			t.Fatal(err)
		}
	}
	size = l.Next()
	root, err := l.Root(size)
	if err == nil {
		signed, err = checkpoint.Sign(t.Context(), checkpoint.Checkpoint{Origin: origin, Size: size, Root: root, Epoch: 3}, key, memory{private})
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed, size
}

func openLog(t *testing.T) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.TempDir(), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestOthersReadCheckpoints: their parser takes our checkpoints and keys.
func TestOthersReadCheckpoints(t *testing.T) {
	for name, private := range signers(t) {
		t.Run(name, func(t *testing.T) {
			key := newKey(t, private)
			signed, size := grow(t, openLog(t), 5, "r", key, private)
			verifier, err := f_note.NewVerifier(key.String())
			if err != nil {
				t.Fatal(err)
			}
			c, _, _, err := f_log.ParseCheckpoint(signed, origin, verifier)
			if err != nil || c.Size != size {
				t.Errorf("%+v (%v)", c, err)
			}
		})
	}
}

func TestWitness(t *testing.T) {
	for name, private := range signers(t) {
		t.Run(name, func(t *testing.T) {
			key := newKey(t, private)
			logKey, err := f_note.NewVerifier(key.String())
			if err != nil {
				t.Fatal(err)
			}
			server, witnessKey := serveWitness(t, logKey)
			var kept []byte
			newClient := func() *publish.Witness {
				client, err := publish.NewWitness(publish.WitnessOptions{
					URL: server.URL, Key: witnessKey, Cosigned: func(signed []byte, _ uint64) { kept = signed },
				})
				if err != nil {
					t.Fatal(err)
				}
				return client
			}
			l, client := openLog(t), newClient()
			for round := range 5 {
				if round == 3 {
					client = newClient() // knows nothing of what went before
				}
				signed, size := grow(t, l, 7, fmt.Sprint(round), key, private)
				if err := client.Publish(t.Context(), signed, size, l); err != nil {
					t.Fatal(err)
				}
				if !bytes.HasPrefix(kept, signed) || len(kept) == len(signed) {
					t.Fatalf("kept %q", kept)
				}
			}
			fork := openLog(t)
			signed, size := grow(t, fork, 60, "fork", key, private)
			if err := newClient().Publish(t.Context(), signed, size, fork); !errors.Is(err, publish.ErrForked) {
				t.Errorf("another history: %v, want ErrForked", err)
			}
		})
	}
}

func serveWitness(t *testing.T, logKey note.Verifier) (*httptest.Server, checkpoint.Key) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, "witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := f_note.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	vkey, err = f_note.VKeyToCosignatureV1(vkey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := checkpoint.ParseKey(vkey)
	if err != nil {
		t.Fatal(err)
	}
	w, err := witness.New(t.Context(), witness.Opts{
		Persistence: inmemory.New(),
		Signers:     []note.Signer{cosigner},
		VerifierForLog: func(_ context.Context, o string) (note.Verifier, bool, error) {
			return logKey, o == origin, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	handler := http.NewServeMux()
	handler.HandleFunc("POST /add-checkpoint", witness.NewHTTPHandler(w).AddCheckpoint)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server, key
}
