package hsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keywright/keywright/hsm"
)

// The disk below the token is full: no key is made, what is there goes on, and when
// there is room again keys are made; what SoftHSM2 left of the others is in nobody's
// way, even for a module that is loaded anew.
func TestFaultFullDiskBelowTheToken(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		disk := t.TempDir()
		mountSmall(t, disk)
		r := newRig(t, w, nil, ontoDisk(t, disk))
		key := r.residentKey("AES_256_GCM")
		fill := filepath.Join(disk, "fill")
		fillDisk(t, fill)
		lost, caller := map[hsm.KeyID]bool{}, ""
		for _, name := range []string{"AES_256_GCM", "ECDSA_P256_SHA256", "HMAC_SHA256"} {
			id := newID()
			if _, err := r.keysOf().GenerateKey(t.Context(), id, name); err == nil {
				t.Errorf("%s: a key was made on a full disk", name)
			} else {
				r.hidesPIN(err)
				caller = told(err)
			}
			lost[id] = true
		}
		eventually(r, func() error {
			_, err := r.use(key, hsm.UseEncrypt, []byte("x"))
			return errors.Join(err, r.unwrap())
		})
		if err := os.Remove(fill); err != nil {
			t.Fatal(err)
		}
		eventually(r, r.all)
		made := r.residentKey("ECDSA_P256_SHA256")
		for id := range lost {
			if err := r.Destroy(t.Context(), id); err != nil && !errors.Is(err, hsm.ErrKeyNotFound) {
				t.Errorf("what is left of a key cannot be removed: %v", err)
			}
		}
		r.probes.end()    // before there is another service
		r.unclosed = true // twice
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		r.open()
		if err := r.findRoot(); err != nil {
			t.Fatal(err)
		}
		listed, err := r.keysOf().ListKeys(t.Context())
		if err != nil || len(listed) != 2 {
			t.Errorf("%d keys are listed, want 2: %v", len(listed), err)
		}
		for _, k := range []hsm.Key{key, made} {
			if _, err := r.keysOf().FindKey(t.Context(), k.ID, k.Algorithm); err != nil {
				t.Error(err)
			}
		}
		for id := range lost {
			if _, err := r.keysOf().FindKey(t.Context(), id, "AES_256_GCM"); !errors.Is(err, hsm.ErrKeyNotFound) {
				t.Errorf("FindKey of a key that was never made: %v", err)
			}
		}
		r.probes.end()
		r.report(observation{fault: "full disk below the token", callers: caller + ", others ok", health: "varies with the calls", recovery: "with the next key"})
	})
}

// mountSmall mounts a small file system, which takes root.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k")
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("no small file system to fill: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// ontoDisk moves a rig's token to a disk before it is opened.
func ontoDisk(t *testing.T, disk string) func(*rig) {
	return func(r *rig) {
		err := errors.Join(os.CopyFS(filepath.Join(disk, "tokens"), os.DirFS(r.tokens())), os.RemoveAll(r.tokens()),
			os.Symlink(filepath.Join(disk, "tokens"), r.tokens()))
		if err != nil {
			t.Fatal(err)
		}
	}
}

func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 4096; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
