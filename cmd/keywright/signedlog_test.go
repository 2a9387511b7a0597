package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
)

type inMemory struct{ private ed25519.PrivateKey }

func (m inMemory) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(m.private, message), nil
}

// signedlog makes an audit log of 30 entries in a directory, of which 20 are
// signed, and beside it a file with the key and one with the checkpoint of 10
// entries: signedlog DIR KEY CHECKPOINT.
func signedlog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: signedlog dir key checkpoint")
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	key, err := checkpoint.NewKey("keywright/00112233445566778899aabbccddeeff", public)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(key.String()+"\n"), 0o600))
	l, err := audit.Open(ts.MkAbs(args[0]), audit.Options{})
	ts.Check(err)
	succession, err := checkpoint.BeginSuccession(context.Background(), key, inMemory{private})
	ts.Check(err)
	ts.Check(l.SaveKeys(succession.Text()))
	for n := range uint64(30) {
		_, err := l.Append(&audit.Entry{RequestID: fmt.Sprintf("r%02d", n), Action: "Encrypt"}, audit.Hot)
		ts.Check(err)
		if n != 9 && n != 19 {
			continue
		}
		root, err := l.Root(n + 1)
		ts.Check(err)
		signed, err := checkpoint.Sign(context.Background(), checkpoint.Checkpoint{Origin: key.Name(), Size: n + 1, Root: root}, key, inMemory{private})
		ts.Check(err)
		ts.Check(l.SaveCheckpoint(signed, n+1))
		if n == 9 {
			ts.Check(os.WriteFile(ts.MkAbs(args[2]), signed, 0o600))
		}
	}
	ts.Check(l.Close())
}
