package manage

import (
	"bytes"
	"regexp"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// wantDescribed wants that a description of an item matches.
func wantDescribed[T proto.Message](t *testing.T, columns []ui.Column[T], item T, line string) {
	t.Helper()
	var out bytes.Buffer
	if err := command.Describe(&command.App{Out: &out}, columns, item); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile("(?m)^" + line).MatchString(out.String()) {
		t.Errorf("no line is %q:\n%s", line, out.String())
	}
}

func TestStatusTellsOfPlaintextExport(t *testing.T) {
	for n, want := range map[uint64]string{0: "-", 1: "1 namespace", 2: "2 namespaces"} {
		wantDescribed(t, statusColumns(), &keywrightv1.Status{PlaintextExportNamespaces: n}, "Plaintext export +"+want+"$")
	}
}

func TestDescribeTellsOfARestore(t *testing.T) {
	k := &keywrightv1.Key{Vault: &keywrightv1.VaultKey{}}
	wantDescribed(t, keyColumns(), k, "Restoring +-$")
	k.Vault.OldestRestoredVersion = 41
	wantDescribed(t, keyColumns(), k, "Restoring +versions below 41 are still to come")
}
