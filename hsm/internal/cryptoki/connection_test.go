package cryptoki

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// connect logs in on a fresh token.
func connect(t *testing.T) (*Module, *Connection) {
	t.Helper()
	token := softhsmtest.Token(t)
	m, err := Load(token.Module)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	found, err := m.FindToken(token.Label, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Login(m, m.Current(), found, func() ([]byte, error) {
		return []byte(strings.TrimSpace(softhsmtest.PIN(t, token))), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, c
}

func take(t *testing.T, c *Connection) *Session {
	t.Helper()
	s, err := c.Take()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSessionsAreKeptUntilRetired(t *testing.T) {
	_, c := connect(t)
	s := take(t, c)
	handle := s.handle
	s.Put()
	if again := take(t, c); again.handle != handle || c.Idle() != 0 {
		t.Fatalf("session %d, want the idle one, %d", again.handle, handle)
	}
	inUse := take(t, c)
	c.Retire()
	inUse.Put()
	if inUse.handle != 0 || c.Idle() != 0 {
		t.Fatal("a session of a retired connection was kept")
	}
}

func TestLoggedIn(t *testing.T) {
	m, c := connect(t)
	s := take(t, c)
	id := [16]byte{1}
	if _, err := s.Find(Object{id, pkcs11.CKO_SECRET_KEY}); !errors.Is(err, ErrAbsent) {
		t.Fatalf("error = %v, want ErrAbsent", err)
	}
	if err := m.p11.Logout(s.handle); err != nil {
		t.Fatal(err)
	}
	_, err := s.Find(Object{id, pkcs11.CKO_SECRET_KEY})
	_, destroyed := s.Destroy(id)
	for _, err := range []error{err, s.LoggedIn(), destroyed} {
		if !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)) {
			t.Errorf("error = %v, want CKR_USER_NOT_LOGGED_IN", err)
		}
	}
}

func TestNewGenerationShutsTheOldOut(t *testing.T) {
	m, c := connect(t)
	if err := c.Within(func() error { return nil }); err != nil || !c.Current() {
		t.Fatalf("Within = %v", err)
	}
	if err := m.Reinitialise(t.Context(), c.Generation); err != nil {
		t.Fatal(err)
	}
	ran := false
	err := c.Within(func() error { ran = true; return nil })
	if !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) || ran || c.Current() {
		t.Fatalf("Within = %v, ran = %v", err, ran)
	}
	if err := m.Reinitialise(t.Context(), c.Generation); err != nil || m.Current() != c.Generation+1 {
		t.Fatalf("a generation made by somebody else was ended: %v", err)
	}
}
