package main

import (
	"bytes"
	"context"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	api "k8s.io/kms/apis/v2"
)

// kmsv2 uses a plugin as a Kubernetes API server does: kmsv2 SOCKET.
func kmsv2(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+ts.MkAbs(args[0]), grpc.WithTransportCredentials(insecure.NewCredentials()))
	ts.Check(err)
	defer conn.Close()
	plugin := api.NewKeyManagementServiceClient(conn)
	told, err := plugin.Status(ctx, &api.StatusRequest{})
	ts.Check(err)
	if told.Version != "v2" || told.Healthz != "ok" || told.KeyId == "" {
		ts.Fatalf("status %v", told)
	}
	secret := bytes.Repeat([]byte("s"), 32)
	sealed, err := plugin.Encrypt(ctx, &api.EncryptRequest{Plaintext: secret, Uid: "1"})
	ts.Check(err)
	opened, err := plugin.Decrypt(ctx, &api.DecryptRequest{Ciphertext: sealed.Ciphertext, KeyId: sealed.KeyId, Uid: "2"})
	ts.Check(err)
	if !bytes.Equal(opened.Plaintext, secret) || sealed.KeyId != told.KeyId {
		ts.Fatalf("decrypted %q, key id %s, status said %s", opened.Plaintext, sealed.KeyId, told.KeyId)
	}
	_, err = plugin.Decrypt(ctx, &api.DecryptRequest{Ciphertext: []byte("nonsense")})
	if status.Code(err) != codes.InvalidArgument {
		ts.Fatalf("nonsense: %v", err)
	}
	_, err = plugin.Encrypt(ctx, &api.EncryptRequest{Plaintext: make([]byte, 1024)})
	if status.Code(err) != codes.InvalidArgument {
		ts.Fatalf("a plaintext that does not fit: %v", err)
	}
}
