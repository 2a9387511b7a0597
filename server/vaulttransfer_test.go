package server_test

import (
	"encoding/json"
	"os"
	"testing"

	"google.golang.org/grpc"

	"github.com/keywright/keywright/keyring/transit"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// vaultBackup is one that OpenBao made, but of a key that may be backed up again.
func vaultBackup(t testing.TB) string {
	t.Helper()
	var made struct{ Cases []struct{ Backup string } }
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile("../keyring/transit/testdata/openbao.json")), &made); err != nil {
		t.Fatal(err)
	}
	b := must[*transit.Backup](t)(transit.ParseBackup(made.Cases[0].Backup))
	b.Exportable, b.PlaintextBackup = true, true
	return must[string](t)(b.Encode())
}

// askVault restores a key of VAULT framing and backs it up.
func (r *routes) askVault() {
	r.t.Helper()
	const ns, key = "/v1/namespaces/{namespace}", "/v1/namespaces/{namespace}/keys/{key}"
	defer func() { r.values["namespace"], r.values["key"] = "app", "card" }()
	r.values["namespace"], r.values["key"] = "open", "moved"
	if made := r.ask("POST", "/v1/namespaces", `{"namespace":"open","plaintextExport":true}`); made["plaintextExport"] != true {
		r.t.Errorf("made %v", made)
	}
	restored := r.ask("POST", ns+"/keys:restoreVault", `{"key":"moved","backup":"`+vaultBackup(r.t)+`"}`)
	if settings, ok := restored["vault"].(map[string]any); !ok || settings["type"] != "aes128-gcm96" || restored["framing"] != "VAULT" || settings["allowPlaintextBackup"] != true {
		r.t.Errorf("restored %v", restored)
	}
	text, ok := r.ask("POST", key+":backupVault", "{}")["backup"].(string)
	if b, err := transit.ParseBackup(text); !ok || err != nil || b.Name != "moved" {
		r.t.Errorf("backed up as %v, %v", b, err)
	}
}

func callVault(t *testing.T, c *grpc.ClientConn) {
	keys, ctx := pb.NewKeysClient(c), t.Context()
	must[*pb.Namespace](t)(pb.NewNamespacesClient(c).CreateNamespace(ctx, &pb.CreateNamespaceRequest{Namespace: "open", PlaintextExport: true}))
	q := &pb.RestoreVaultKeyRequest{Namespace: "open", Key: "moved", Backup: vaultBackup(t), ValidateOnly: true}
	if k := must[*pb.Key](t)(keys.RestoreVaultKey(ctx, q)); k.Vault.GetType() != "aes128-gcm96" {
		t.Errorf("described %v", k)
	}
	q.ValidateOnly = false
	must[*pb.Key](t)(keys.RestoreVaultKey(ctx, q))
	must[*pb.BackupVaultKeyResponse](t)(keys.BackupVaultKey(ctx, &pb.BackupVaultKeyRequest{Namespace: "open", Key: "moved", Hashicorp: true}))
}
