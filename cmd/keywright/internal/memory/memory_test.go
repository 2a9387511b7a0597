package memory

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
)

// signer signs with a key of its own.
type signer struct{ private ed25519.PrivateKey }

func (s signer) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(s.private, message), nil
}

// server is a log with its keys.
type server struct {
	t      *testing.T
	log    *audit.Log
	keys   checkpoint.Succession
	signer signer
	origin string
}

func newSigner(t *testing.T, origin string) (checkpoint.Key, signer) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := checkpoint.NewKey(origin, public)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer{private}
}

func newServer(t *testing.T, origin string) *server {
	t.Helper()
	log, err := audit.Open(t.TempDir(), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	key, signs := newSigner(t, origin)
	keys, err := checkpoint.BeginSuccession(t.Context(), key, signs)
	if err != nil {
		t.Fatal(err)
	}
	return &server{t, log, keys, signs, origin}
}

func (s *server) write(n int, action string) {
	s.t.Helper()
	for range n {
		if _, err := s.log.Append(&audit.Entry{Action: action}, audit.Hot); err != nil {
			s.t.Fatal(err)
		}
	}
}

// shows has a memory check what the server shows now.
func (s *server) shows(m *Memory) (Seen, error) {
	s.t.Helper()
	known, err := m.KnownSize()
	if err != nil {
		return Seen{}, err
	}
	size := s.log.Next()
	root, err := s.log.Root(size)
	if err != nil {
		s.t.Fatal(err)
	}
	note, err := checkpoint.Sign(s.t.Context(), checkpoint.Checkpoint{Origin: s.origin, Size: size, Root: root}, s.keys.Current(), s.signer)
	if err != nil {
		s.t.Fatal(err)
	}
	var proof [][]byte
	if known > 0 && known <= size {
		hashes, err := s.log.Consistency(known, size)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, hash := range hashes {
			proof = append(proof, hash[:])
		}
	}
	return m.Check(note, s.keys.Text(), proof)
}

func newMemory(t *testing.T) *Memory {
	t.Helper()
	dir := t.TempDir()
	return Open(func(name string) string { return map[string]string{EnvStateDir: filepath.Join(dir, "state")}[name] }, "id")
}

func TestALogMustContinueWhatWasSeen(t *testing.T) {
	m, s := newMemory(t), newServer(t, "keywright/one")
	for i, n := range []int{3, 0, 1, 100, 5} {
		s.write(n, "a")
		seen, err := s.shows(m)
		if err != nil || seen.First != (i == 0) || seen.Size != s.log.Next() || seen.Key.String() != s.keys.Current().String() {
			t.Fatalf("round %d: %+v, %v", i, seen, err)
		}
	}
}

func TestAlarms(t *testing.T) {
	for name, test := range map[string]struct {
		swap func(s *server) *server
		want string
	}{
		"shorter": {func(s *server) *server {
			other := *s
			other.log = newServer(s.t, s.origin).log
			other.write(4, "a")
			return &other
		}, "fewer than the 10 entries"},
		"another past": {func(s *server) *server {
			other := *s
			other.log = newServer(s.t, s.origin).log
			other.write(20, "b")
			return &other
		}, "not those that were seen before"},
		"another past of the same size": {func(s *server) *server {
			other := *s
			other.log = newServer(s.t, s.origin).log
			other.write(10, "b")
			return &other
		}, "not those that were seen before"},
		"another key": {func(s *server) *server {
			other := *newServer(s.t, s.origin)
			other.log = s.log
			return &other
		}, "keys are not those"},
		"a break": {func(s *server) *server {
			key, signs := newSigner(s.t, s.origin)
			keys, err := s.keys.Break(s.t.Context(), 10, "token burnt", key, signs)
			if err != nil {
				s.t.Fatal(err)
			}
			s.write(1, "a")
			return &server{s.t, s.log, keys, signs, s.origin}
		}, "token burnt"},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := newMemory(t), newServer(t, "keywright/one")
			s.write(10, "a")
			if _, err := s.shows(m); err != nil {
				t.Fatal(err)
			}
			for range 2 { // and it does not forget
				if _, err := test.swap(s).shows(m); !errors.Is(err, ErrAlarm) || !strings.Contains(fmt.Sprint(err), test.want) {
					t.Fatalf("error %v, want an alarm with %q", err, test.want)
				} else if forget := "remove " + m.checkpoint + " and " + m.key; !strings.Contains(err.Error(), forget) {
					t.Errorf("error %v does not say how to forget what was seen", err)
				}
			}
			if name != "a break" {
				if _, err := s.shows(m); err != nil {
					t.Errorf("the true log: %v", err)
				}
			}
		})
	}
}

// A new key for which the old one vouches is as good.
func TestAKeyThatFollowsIsBelieved(t *testing.T) {
	m, s := newMemory(t), newServer(t, "keywright/one")
	s.write(10, "a")
	if _, err := s.shows(m); err != nil {
		t.Fatal(err)
	}
	key, signs := newSigner(t, s.origin)
	keys, err := s.keys.Follow(t.Context(), 10, s.signer, key, signs)
	if err != nil {
		t.Fatal(err)
	}
	s.keys, s.signer = keys, signs
	s.write(1, "a")
	for range 2 {
		if seen, err := s.shows(m); err != nil || !seen.Key.Equal(key) {
			t.Fatalf("%+v, %v", seen, err)
		}
	}
}

func TestNoPlaceNoMemory(t *testing.T) {
	if Open(func(string) string { return "" }, "id") != nil {
		t.Error("a memory without a place")
	}
}
