package badger

import (
	"testing"

	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/storetest"
)

// open opens a store in dir, to be closed with the test.
func open(t testing.TB, opts Options) *Store {
	t.Helper()
	s, err := Open(opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return open(t, Options{Dir: t.TempDir()})
	})
}

func TestConformanceBehindFaults(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return storetest.Faulty(open(t, Options{Dir: t.TempDir()}))
	})
}

func TestCompaction(t *testing.T) {
	storetest.RunCompaction(t, func(t *testing.T, keep uint64) store.Store {
		return open(t, Options{Dir: t.TempDir(), KeepRevisions: keep})
	})
}
