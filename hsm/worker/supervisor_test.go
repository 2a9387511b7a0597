package worker

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// Everything that hsm.Service promises goes through a worker.
func TestServiceThroughWorkers(t *testing.T) {
	s, _, root := fresh(t, 2)
	ctx := t.Context()
	blob := wrap(t, s, root)
	for range 8 { // more than the workers there are: each finds the root by itself
		unwraps(t, s, blob)
	}
	if _, err := s.FindRoot(ctx, root.ID, root.CheckValue); err != nil {
		t.Error(err)
	}
	random, err := s.Random(ctx, 48)
	if err != nil || len(random) != 48 || bytes.Equal(random, make([]byte, 48)) {
		t.Errorf("random: %x, %v", random, err)
	}
	signer, err := s.GenerateSigner(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := s.Sign(ctx, signer.ID, []byte("message")); err != nil {
			t.Error(err)
		}
	}
	if found, err := s.FindSigner(ctx, signer.ID); err != nil || sameSigner(found, signer) != nil {
		t.Errorf("found signer %v, %v", found, err)
	}
	if err := s.Probe(ctx); err != nil {
		t.Error(err)
	}
	status := s.Status()
	if !status.Healthy || status.Workers != 2 || status.Generation != 2 || status.SessionsMax != hsm.DefaultMaxSessions ||
		status.TokenLabel != "keywright-test" || status.TokenSerial == "" || !status.Capabilities.RootWrap {
		t.Errorf("status %+v", status)
	}
}

// Errors keep class, code and identity.
func TestErrorsKeepTheirIdentity(t *testing.T) {
	s, _, root := fresh(t, 1)
	ctx := t.Context()
	blob := wrap(t, s, root)
	blob[len(blob)-1] ^= 1
	_, err := s.Unwrap(ctx, blob, []byte("aad"))
	want(t, err, hsm.ErrUnwrap, hsm.ClassCaller)
	_, err = s.Unwrap(ctx, blob[:3], nil)
	want(t, err, hsm.ErrBlob, hsm.ClassCaller)
	_, err = s.FindRoot(ctx, hsm.KeyID{1}, root.CheckValue)
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	_, err = s.FindRoot(ctx, root.ID, make([]byte, 16))
	want(t, err, hsm.ErrWrongRoot, hsm.ClassCaller)
	_, err = s.FindRoot(ctx, root.ID, nil)
	want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	_, err = s.Wrap(ctx, hsm.KeyID{2}, 1, secret, nil)
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	_, err = s.Wrap(ctx, root.ID, 1, make([]byte, 8<<20), nil)
	want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	_, err = s.FindSigner(ctx, hsm.KeyID{3})
	want(t, err, hsm.ErrSignerNotFound, hsm.ClassCaller)
	_, err = s.Sign(ctx, hsm.KeyID{3}, nil)
	want(t, err, hsm.ErrSignerNotFound, hsm.ClassCaller)
	_, err = s.Random(ctx, 0)
	want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Random(ended, 8)
	want(t, err, context.Canceled, hsm.ClassCaller)
	if status := s.Status(); !status.Healthy || status.WorkerRestarts != 0 {
		t.Errorf("wrong requests made the token sick: %+v", status)
	}
}

// An object that is destroyed is forgotten by all workers: none takes its absence for
// a fault of the token.
func TestDestroyReachesAllWorkers(t *testing.T) {
	s, _, root := fresh(t, 2)
	blob := wrap(t, s, root)
	for _, p := range workers(t, s) {
		if err := s.introduce(t.Context(), p, root.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Destroy(t.Context(), root.ID); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		_, err := s.Unwrap(t.Context(), blob, []byte("aad"))
		want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	}
	for range 3 {
		if err := s.Probe(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if status := s.Status(); !status.Healthy || status.WorkerRestarts != 0 {
		t.Errorf("status %+v", status)
	}
}

func TestOpenReportsWhatIsWrong(t *testing.T) {
	token := softhsmtest.Token(t)
	for name, c := range map[string]struct {
		change   func(*Config)
		sentinel error
		class    hsm.Class
	}{
		"module":  {func(c *Config) { c.HSM.Module = token.PINFile }, hsm.ErrModule, hsm.ClassCaller},
		"token":   {func(c *Config) { c.HSM.TokenLabel = "another" }, hsm.ErrTokenNotFound, hsm.ClassCaller},
		"none":    {func(c *Config) { c.HSM.TokenLabel = "" }, hsm.ErrConfig, hsm.ClassCaller},
		"PIN":     {func(c *Config) { c.HSM.PIN = nil }, hsm.ErrConfig, hsm.ClassCaller},
		"workers": {func(c *Config) { c.Workers = MaxWorkers + 1 }, hsm.ErrConfig, hsm.ClassCaller},
		"program": {func(c *Config) { c.Command = []string{"/bin/true"} }, hsm.ErrUnavailable, hsm.ClassDevice},
	} {
		t.Run(name, func(t *testing.T) {
			before := resources(t)
			config := configFor(token)
			c.change(&config)
			_, err := Open(t.Context(), config)
			want(t, err, c.sentinel, c.class)
			before.same(t)
		})
	}
}

func TestCloseEndsEverything(t *testing.T) {
	before := resources(t)
	config := configFor(softhsmtest.Token(t))
	config.Workers = 3
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	before.same(t)
	_, err = s.Random(t.Context(), 8)
	want(t, err, hsm.ErrClosed, hsm.ClassCaller)
}

// A token is made in a worker too.
func TestInitToken(t *testing.T) {
	token := softhsmtest.Token(t)
	before := resources(t)
	const label = "made in a worker"
	if err := InitToken(t.Context(), token.Module, label, "so-pin-1", "pin-1234"); err != nil {
		t.Fatal(err)
	}
	want(t, InitToken(t.Context(), token.Module, label, "so-pin-1", "pin-1234"), hsm.ErrTokenExists, hsm.ClassCaller)
	before.same(t)
	config := configFor(token)
	config.HSM.TokenLabel = label
	config.HSM.PIN = func() (hsm.PIN, error) { return hsm.NewPIN([]byte("pin-1234")), nil }
	supervise(t, config)
}
