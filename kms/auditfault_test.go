//go:build linux

package kms

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/store"
)

func wantAuditUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != Unavailable || e.Reason != "AUDIT_UNAVAILABLE" {
		t.Errorf("%s: error %v, want AUDIT_UNAVAILABLE", what, err)
	}
}

// Without an audit record there is no answer, and without an intent no change.
func TestNothingHappensWithoutLog(t *testing.T) {
	in := newScene(t)
	before := in.view()
	if err := in.audit.Close(); err != nil {
		t.Fatal(err)
	}
	revision := must[store.Revision](t)(in.store.Revision(t.Context()))
	for _, m := range mutations {
		if err := m.do(in, "once"); !m.silent {
			wantAuditUnavailable(t, m.name, err)
		}
	}
	if now := must[store.Revision](t)(in.store.Revision(t.Context())); now != revision {
		t.Errorf("the store went from revision %d to %d", revision, now)
	}
	for name, ask := range unlogged(t, in) {
		wantAuditUnavailable(t, name, ask())
	}
	in.clock.Store(0)
	in.crashStore()
	in.open()
	if after := in.view(); after != before {
		t.Errorf("something changed without a line in the log:\n%s", diff(before, after))
	}
}

// unlogged are uses and reads; each must fail when it cannot be logged, and give
// nothing away with its error.
func unlogged(t *testing.T, in *scene) map[string]func() error {
	ctx := t.Context()
	encrypt := &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")}
	return map[string]func() error{
		"encrypt": func() error {
			got, err := in.Encrypt(ctx, admin(), encrypt)
			if got.Ciphertext != nil {
				t.Error("a ciphertext was given out")
			}
			return err
		},
		"decrypt": func() error {
			got, err := in.Decrypt(ctx, admin(), &DecryptRequest{Namespace: "pay", Ciphertext: in.sealed["card 2"]})
			if got.Plaintext != nil {
				t.Error("a plaintext was given out")
			}
			return err
		},
		"denied": func() error { return second(in.Encrypt(ctx, nobody(), encrypt)) },
		"batch": func() error {
			results, err := in.Batch(ctx, admin(), []Operation{encrypt, encrypt})
			if results != nil {
				t.Error("results were given out")
			}
			return err
		},
		"do": func() error {
			result := in.do(ctx, admin(), encrypt)
			if result.Response != nil {
				t.Error("a response was given out")
			}
			return result.Err
		},
		"random": func() error {
			return second(in.GenerateRandom(ctx, admin(), &GenerateRandomRequest{Namespace: "pay", Size: 8}))
		},
		"data key": func() error {
			return second(in.GenerateDataKey(ctx, admin(), &GenerateDataKeyRequest{Namespace: "pay", Key: "card"}))
		},
		"get key":    func() error { return second(in.GetKey(ctx, admin(), KeyRef{Namespace: "pay", Key: "card"})) },
		"get policy": func() error { return second(in.GetPolicy(ctx, admin(), PolicyRef{Name: "all"})) },
		"token":      func() error { return second(in.CreateToken(ctx, admin(), CreateTokenRequest{Principal: "app"})) },
		"status":     func() error { return second(in.GetStatus(ctx, admin())) },
		"list keys": func() error {
			_, _, err := in.ListKeys(ctx, admin(), ListKeysRequest{Namespace: "pay"})
			return err
		},
	}
}

// crashStore ends a service whose log is closed already.
func (in *testInstallation) crashStore() {
	in.t.Helper()
	in.Service.stopJobs()
	in.Service = nil
	if err := in.store.Close(); err != nil {
		in.t.Fatal(err)
	}
}

// On a full disk uses are refused while operators may still act from the log's
// reserve; when there is space again, service comes back by itself.
func TestFullAuditDisk(t *testing.T) {
	t.Parallel()
	in := newScene(t)
	in.close()
	dir := filepath.Join(in.dir, "audit")
	kept := filepath.Join(in.dir, "kept")
	if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m")
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("a small disk cannot be made here: mount: %v", err)
	}
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	in.open()
	t.Cleanup(in.close)
	before := in.view()
	earlier := len(in.entries(audit.Filter{Action: "DisableVersion"}))

	ballast := filepath.Join(dir, "ballast")
	fillDisk(t, ballast)
	for range 10_000 {
		if _, err = in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")}); err != nil {
			break
		}
	}
	wantAuditUnavailable(t, "encrypt on a full disk", err)
	_, err = in.Batch(t.Context(), admin(), []Operation{&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")}})
	wantAuditUnavailable(t, "batch on a full disk", err)
	if in.Health(t.Context()).AuditProblem == "" {
		t.Error("health does not say that the log is full")
	}
	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), ref("card", 2)))
	must[KeyVersion](t)(in.EnableVersion(t.Context(), admin(), ref("card", 2)))

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); in.audit.Health() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not come back: %v", in.audit.Health())
		}
	}
	if after := in.view(); after != before {
		t.Errorf("the full disk changed something:\n%s", diff(before, after))
	}
	if n := len(in.entries(audit.Filter{Action: "DisableVersion"})) - earlier; n != 2 {
		t.Errorf("the log has %d lines about the operator's change, want 2", n)
	}
	in.wantBracketed()
}

// fillDisk writes until nothing more fits.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 64 << 10; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}
