package audit

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

const origin = "keywright/00112233445566778899aabbccddeeff"

// signer signs with a key in memory.
type signer struct{ private ed25519.PrivateKey }

func (s signer) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(s.private, message), nil
}

func newSigner(t testing.TB, seed byte) (checkpoint.Key, signer) {
	t.Helper()
	s := signer{ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), 32)))}
	key, err := checkpoint.NewKey(origin, s.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, s
}

// sign makes and saves a checkpoint of all lines.
func sign(t testing.TB, l *Log) []byte {
	t.Helper()
	size, err := l.SyncAll()
	if err != nil {
		t.Fatal(err)
	}
	signed := signSize(t, l, size)
	if err := l.SaveCheckpoint(signed, size); err != nil {
		t.Fatal(err)
	}
	return signed
}

func signSize(t testing.TB, l *Log, size uint64) []byte {
	t.Helper()
	root, err := l.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	key, s := newSigner(t, 'k')
	signed, err := checkpoint.Sign(t.Context(), checkpoint.Checkpoint{Origin: origin, Size: size, Root: root}, key, s)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// appendLines adds so many different lines.
func appendLines(t testing.TB, l *Log, lines int) {
	t.Helper()
	for range lines {
		mustAppend(t, l, operation(fmt.Sprint("r", l.Next())), Hot)
	}
}

// checkTree compares every root with that of the lines in the files.
func checkTree(t testing.TB, l *Log) {
	t.Helper()
	var stored []tlog.Hash
	r := tlog.HashReaderFunc(func(indexes []int64) (found []tlog.Hash, err error) {
		for _, i := range indexes {
			found = append(found, stored[i])
		}
		return found, nil
	})
	for n, e := range checkLines(t, l) {
		hashes, err := tlog.StoredHashes(int64(n), e.AppendJSON(nil), r)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		want, err := tlog.TreeHash(int64(n+1), r)
		if err != nil {
			t.Fatal(err)
		}
		if root, err := l.Root(uint64(n + 1)); err != nil || root != want {
			t.Fatalf("root of %d lines is %x (%v), want %x", n+1, root, err, want)
		}
	}
}

func TestTreeFollowsLines(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		l := openLog(t, dir, Options{SegmentBytes: 5000})
		appendLines(t, l, 30)
		checkTree(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTreeIsMadeAnew: the tree follows from the lines, whatever became of it.
func TestTreeIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, layout.Tree)
	l := openLog(t, dir, Options{SegmentBytes: 5000})
	appendLines(t, l, 50)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []int{0, 1, 32, 33, 1000, len(whole) - 1, len(whole)} {
		if err := os.WriteFile(path, whole[:left], 0o600); err != nil {
			t.Fatal(err)
		}
		l := openLog(t, dir, Options{})
		checkTree(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	checkTree(t, openLog(t, dir, Options{}))
}

func TestProofsOfLines(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{SegmentBytes: 5000})
	appendLines(t, l, 40)
	for size := uint64(1); size <= 40; size += 3 {
		root, err := l.Root(size)
		if err != nil {
			t.Fatal(err)
		}
		for n := range size {
			line, err := l.Line(n)
			if err != nil {
				t.Fatal(err)
			}
			hashes, err := l.Inclusion(n, size)
			if err != nil {
				t.Fatal(err)
			}
			proof := checkpoint.Proof{Index: n, Hashes: hashes, Note: signSize(t, l, size)}
			key, _ := newSigner(t, 'k')
			if c, err := proof.Verify(line, key); err != nil || c.Root != root {
				t.Fatalf("line %d of %d: %v", n, size, err)
			}
		}
		if hashes, err := l.Consistency(size, 40); err != nil || size < 40 && len(hashes) == 0 {
			t.Fatalf("consistency of %d: %d hashes (%v)", size, len(hashes), err)
		}
	}
	_, tooLong := l.Root(41)
	_, noLine := l.Line(40)
	_, noProof := l.Inclusion(40, 41)
	_, noPrefix := l.Consistency(2, 41)
	for name, err := range map[string]error{"root": tooLong, "line": noLine, "inclusion": noProof, "consistency": noPrefix} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("%s beyond the log: %v, want ErrRange", name, err)
		}
	}
}

func TestCheckpointAndKeysAreKept(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	if signed, size := l.Checkpoint(); signed != nil || size != 0 || l.Keys() != nil {
		t.Error("a new log has a checkpoint or keys")
	}
	appendLines(t, l, 5)
	signed := sign(t, l)
	appendLines(t, l, 3)
	if err := l.SaveKeys([]byte("succession\n")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, size := l.Checkpoint()
		if string(got) != string(signed) || size != 5 || l.Stats().Signed != 5 || string(l.Keys()) != "succession\n" {
			t.Errorf("checkpoint of %d (%d): %s, keys %q", size, l.Stats().Signed, got, l.Keys())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, dir, Options{})
	}
}

func TestSaveCheckpointRefuses(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	appendLines(t, l, 10)
	old := signSize(t, l, 4)
	sign(t, l)
	other := openLog(t, t.TempDir(), Options{})
	appendLines(t, other, 11)
	mustAppend(t, l, operation("r11"), Hot)
	for name, test := range map[string]struct {
		signed []byte
		size   uint64
		want   error
	}{
		"nothing":         {nil, 0, checkpoint.ErrForm},
		"another size":    {signSize(t, l, 11), 10, checkpoint.ErrForm},
		"older":           {old, 4, ErrRange},
		"of another log":  {signSize(t, other, 11), 11, ErrTampered},
		"longer than log": {sign(t, func() *Log { appendLines(t, other, 9); return other }()), 20, ErrTampered},
	} {
		if err := l.SaveCheckpoint(test.signed, test.size); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if _, size := l.Checkpoint(); size != 10 {
		t.Errorf("the checkpoint is now of %d lines", size)
	}
}

// TestOpenComparesWithCheckpoint: form and order of the lines are right, but
// they are not the ones that were signed.
func TestOpenComparesWithCheckpoint(t *testing.T) {
	make := func(t *testing.T) (dir string) {
		dir = t.TempDir()
		l := openLog(t, dir, Options{})
		appendLines(t, l, 6)
		sign(t, l)
		appendLines(t, l, 2)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, test := range map[string]struct {
		change func(lines []string) []string
		reason string
	}{
		"cut":                 {func(lines []string) []string { return lines[:5] }, "shorter than its checkpoint"},
		"all gone":            {func([]string) []string { return nil }, "shorter than its checkpoint"},
		"changed":             {func(lines []string) []string { lines[2] = strings.Replace(lines[2], "192", "193", 1); return lines }, "differ from what was signed"},
		"unsigned tail cut":   {func(lines []string) []string { return lines[:6] }, ""},
		"unsigned is changed": {func(lines []string) []string { lines[7] = strings.Replace(lines[7], "192", "193", 1); return lines }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := make(t)
			path := filepath.Join(dir, "0000000000000000.jsonl")
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitAfter(string(file), "\n")[:8]
			if err := os.WriteFile(path, []byte(strings.Join(test.change(lines), "")), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(dir, Options{})
			if test.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			tampered, ok := errors.AsType[*TamperedError](err)
			if !ok || !errors.Is(err, ErrTampered) || tampered.Size != 6 || !strings.Contains(tampered.Reason, test.reason) {
				t.Errorf("%v, want TamperedError: %s", err, test.reason)
			}
		})
	}
}

func TestMaxUnsigned(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{MaxUnsigned: 10})
	appendLines(t, l, 10)
	if _, err := l.Append(operation("refused"), Hot); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "audit.max_unsigned") {
		t.Fatalf("Append: %v, want ErrUnavailable that names the bound", err)
	}
	if !errors.Is(l.Health(), ErrUnavailable) {
		t.Errorf("health is %v", l.Health())
	}
	for range 100 {
		mustAppend(t, l, mutation("operators can act"), Sync)
	}
	if _, err := l.Append(mutation("refused"), Hot); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Append: %v, want ErrUnavailable", err)
	}
	sign(t, l)
	if l.Health() != nil {
		t.Errorf("health is %v after a checkpoint", l.Health())
	}
	appendLines(t, l, 10)
	if found := checkLines(t, l); len(found) != 120 {
		t.Errorf("%d lines", len(found))
	}
}

func TestSyncAll(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{Interval: time.Hour})
	appendLines(t, l, 5)
	if size, err := l.SyncAll(); err != nil || size != 5 || l.Stats().Synced < 5 {
		t.Errorf("%d lines, %d on disk (%v)", size, l.Stats().Synced, err)
	}
}
