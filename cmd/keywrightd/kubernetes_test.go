package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	v2 "k8s.io/kms/apis/v2"
)

const kubePolicy = `permit (principal == Workload::"local:kube-apiserver", action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"kube");`

// TestKubernetesSurvivesKills kills the server three times while an API server uses
// it. Its socket is left behind, and taken over; each ciphertext that was answered can
// be decrypted, over the same connection of the client's.
func TestKubernetesSurvivesKills(t *testing.T) {
	s := newSite(t)
	socket := filepath.Join(s.dir, "kms.sock")
	s.listenKubernetes(t)
	must(t, s.run(t, "init"))
	d := s.serve(t)
	d.call(t, s.data(), "", "namespace", "create", "kube")
	d.call(t, s.data(), "", "key", "create", "kube/secrets")
	d.call(t, s.data(), kubePolicy, "policy", "put", "kube/apiserver")
	c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client := v2.NewKeyManagementServiceClient(c)
	answered := map[string]*v2.EncryptResponse{}
	for round := range 3 {
		timer := time.AfterFunc(200*time.Millisecond, d.kill)
		encryptUntilLost(t, client, fmt.Sprint(round), answered)
		timer.Stop()
		d.kill()
		d = s.serve(t)
	}
	if len(answered) == 0 {
		t.Error("nothing was answered")
	}
	for plaintext, e := range answered {
		p, err := client.Decrypt(t.Context(), &v2.DecryptRequest{Ciphertext: e.Ciphertext, KeyId: e.KeyId, Uid: "d"})
		if err != nil || string(p.Plaintext) != plaintext {
			t.Fatalf("%q: %v, %v", plaintext, p, err)
		}
	}
	d.stop(t)
	if !strings.Contains(d.printed(), "serving Kubernetes KMS v2") {
		t.Errorf("printed\n%s", d.printed())
	}
}

// listenKubernetes adds a socket to the configuration.
func (s *site) listenKubernetes(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("listen: {"), []byte("listen: {kubernetes: [{path: kms.sock, namespace: kube, key: secrets, principal: 'Workload::\"local:kube-apiserver\"'}], "), 1)
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// encryptUntilLost encrypts until the server is lost, and remembers what was answered.
func encryptUntilLost(t *testing.T, client v2.KeyManagementServiceClient, round string, answered map[string]*v2.EncryptResponse) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := 0; ; i++ {
		plaintext := fmt.Sprintf("seed %s-%d", round, i)
		e, err := client.Encrypt(ctx, &v2.EncryptRequest{Plaintext: []byte(plaintext), Uid: "e"})
		if status.Code(err) == codes.Unavailable {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		answered[plaintext] = e
	}
}
