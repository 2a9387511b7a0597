package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// storeHolds tells whether a file of the store holds a text.
func storeHolds(t *testing.T, s *site, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.data(), "store"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// After a rekeying the old secret is in the store's files still; compacted, it is
// in none, and the server goes on with everything else.
func TestCompactStoreRemovesReplacedSecrets(t *testing.T) {
	s := newSite(t)
	refused(t, s.run(t, "compact-store"), 7, "keywrightd init")
	must(t, s.run(t, "init"))
	d := s.serve(t)
	d.call(t, s.data(), "", "namespace", "create", "pay")
	d.call(t, s.data(), "", "key", "create", "pay/card")
	d.call(t, s.data(), "", "namespace", "rekey", "pay", "--wait")
	var namespace struct{ ID string }
	if err := json.Unmarshal([]byte(d.call(t, s.data(), "", "namespace", "describe", "pay", "-o", "json")), &namespace); err != nil {
		t.Fatal(err)
	}
	refused(t, s.run(t, "compact-store"), 9, "another")
	d.stop(t)
	old, present := "domain/"+namespace.ID+"/00000001", "domain/"+namespace.ID
	if !storeHolds(t, s, old) {
		t.Fatal("the files hold no old secret even before: this proves nothing")
	}
	must(t, s.run(t, "compact-store"))
	if storeHolds(t, s, old) || !storeHolds(t, s, present) {
		t.Errorf("the files hold the old secret: %v; the present one: %v", storeHolds(t, s, old), storeHolds(t, s, present))
	}
	d = s.serve(t)
	d.call(t, s.data(), "", "key", "rotate", "pay/card")
	d.call(t, s.data(), "", "namespace", "confirm-erasure", "pay", "--generation", "1", "--yes")
	d.stop(t)
}
