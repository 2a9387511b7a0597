package verify_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
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

// pair is a key with its private half.
type pair struct {
	checkpoint.Key
	signer memory
}

func newPair(t testing.TB, name string, private crypto.Signer) pair {
	t.Helper()
	key, err := checkpoint.NewKey(name, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pair{key, memory{private}}
}

func edPair(t testing.TB, name, seed string) pair {
	t.Helper()
	return newPair(t, name, ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, 32))))
}

func ecPair(t testing.TB, name string) pair {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newPair(t, name, private)
}

// fixture is a real log: 60 entries in segments of 10, signed by the second key
// up to 50; the first key signed up to 20. The checkpoints of 10, 30 and 60
// entries were kept, the last before the log was put back.
type fixture struct {
	dir    string
	keys   [4]pair // the third follows in none of the logs, the fourth after a break at 60
	kept   map[uint64][]byte
	broken []byte // succession with the break

	alien, alienKeys []byte // checkpoint and keys of another log
}

func newFixture(t testing.TB) fixture {
	t.Helper()
	f := fixture{
		dir:  t.TempDir(),
		keys: [4]pair{edPair(t, origin, "a"), ecPair(t, origin), edPair(t, origin, "c"), edPair(t, origin, "d")},
		kept: map[uint64][]byte{},
	}
	l := openLog(t, f.dir, 10)
	first, err := checkpoint.BeginSuccession(t.Context(), f.keys[0].Key, f.keys[0].signer)
	must(t, err)
	for n := range 60 {
		appendEntry(t, l, fmt.Sprintf("r%02d", n))
		switch n {
		case 9:
			f.kept[10] = sign(t, l, 10, f.keys[0])
		case 29:
			f.kept[30] = sign(t, l, 30, f.keys[1])
		case 49:
			must(t, l.SaveCheckpoint(sign(t, l, 50, f.keys[1]), 50))
		case 59:
			f.kept[60] = sign(t, l, 60, f.keys[1])
		}
	}
	both, err := first.Follow(t.Context(), 20, f.keys[0].signer, f.keys[1].Key, f.keys[1].signer)
	must(t, err)
	must(t, l.SaveKeys(both.Text()))
	broken, err := both.Break(t.Context(), 60, "the token burnt", f.keys[3].Key, f.keys[3].signer)
	must(t, err)
	f.broken = broken.Text()
	must(t, l.Close())
	alien := edPair(t, "keywright/ffeeddccbbaa99887766554433221100", "a")
	f.alien = signRoot(t, 50, [32]byte{1}, alien)
	f.alienKeys = begin(t, alien)
	return f
}

func begin(t testing.TB, p pair) []byte {
	t.Helper()
	s, err := checkpoint.BeginSuccession(t.Context(), p.Key, p.signer)
	must(t, err)
	return s.Text()
}

// openLog opens a log with segments of so many of appendEntry's lines.
func openLog(t testing.TB, dir string, lines int64) *audit.Log {
	t.Helper()
	size := int64(len(entry("r00").AppendJSON(nil)) + 2)
	l, err := audit.Open(dir, audit.Options{SegmentBytes: lines*size + size/2})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func entry(id string) *audit.Entry {
	return &audit.Entry{
		Time: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), RequestID: id, Principal: "internal/spiffe://example.org/billing", Method: "mtls",
		Source: "192.0.2.7:40112", Action: "Encrypt", Namespace: "billing", Key: "cards", KeyID: 0x0123456789abcdef, Version: 3, Decision: audit.Allow,
		Policies: []string{"billing/app"}, Outcome: "OK", EncryptionContext: map[string]string{"table": "größe"},
	}
}

func appendEntry(t testing.TB, l *audit.Log, id string) {
	t.Helper()
	_, err := l.Append(entry(id), audit.Hot)
	must(t, err)
}

func sign(t testing.TB, l *audit.Log, size uint64, p pair) []byte {
	t.Helper()
	root, err := l.Root(size)
	must(t, err)
	return signRoot(t, size, root, p)
}

func signRoot(t testing.TB, size uint64, root [32]byte, p pair) []byte {
	t.Helper()
	signed, err := checkpoint.Sign(t.Context(), checkpoint.Checkpoint{Origin: p.Name(), Size: size, Root: root, Epoch: 7}, p.Key, p.signer)
	must(t, err)
	return signed
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// copyDir makes a copy of a log to tamper with.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	must(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

func segmentPath(dir string, first int) string {
	return filepath.Join(dir, fmt.Sprintf("%016d.jsonl", first))
}

// edit changes the lines of one segment, each with its newline.
func edit(t testing.TB, dir string, first int, change func(lines []string) []string) {
	t.Helper()
	path := segmentPath(dir, first)
	text, err := os.ReadFile(path)
	must(t, err)
	lines := strings.SplitAfter(string(text), "\n")
	must(t, os.WriteFile(path, []byte(strings.Join(change(lines[:len(lines)-1]), "")), 0o600))
}

// replay makes a log anew from lines, as who controls the server could, in place
// of the files of dir; the checkpoint and keys stay.
func replay(t testing.TB, dir string, ids []string) *audit.Log {
	t.Helper()
	for _, pattern := range []string{"*.jsonl", "*.index*", "tree"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		for _, path := range paths {
			must(t, os.Remove(path))
		}
	}
	checkpointPath := filepath.Join(dir, "checkpoint")
	saved, err := os.ReadFile(checkpointPath)
	must(t, err)
	must(t, os.Remove(checkpointPath))
	l := openLog(t, dir, 10)
	for _, id := range ids {
		appendEntry(t, l, id)
	}
	must(t, os.WriteFile(checkpointPath, saved, 0o600))
	return l
}

// ids are the request ids of the fixture, but for the changes.
func ids(changes map[int]string) []string {
	all := make([]string, 60)
	for n := range all {
		all[n] = fmt.Sprintf("r%02d", n)
	}
	for n, id := range changes {
		all[n] = id
	}
	return all
}
