package rig

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/bench/internal/load"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// policies is the number of policies that are loaded: one is about the load
// generator, the others about somebody else.
const policies = 100

// tokenTTL is longer than any run.
const tokenTTL = 24 * time.Hour

// furnish makes keys, policies and a token, as the administrator.
func (r *Rig) furnish(ctx context.Context, addr string) (load.Token, error) {
	admin := filepath.Join(r.data(), "tls", "admin")
	conns, err := load.Dial(load.Target{Addr: addr, CAFile: r.CAFile(), CertFile: admin + ".pem", KeyFile: admin + "-key.pem"}, 1)
	if err != nil {
		return "", err
	}
	conn := conns[0]
	defer conn.Close() //nolint:errcheck // all answers were read
	if _, err := pb.NewNamespacesClient(conn).CreateNamespace(ctx, &pb.CreateNamespaceRequest{Namespace: Namespace}); err != nil {
		return "", err
	}
	keys := pb.NewKeysClient(conn)
	for name, algorithm := range map[string]string{SealingKey: "XAES_256_GCM", SigningKey: "ECDSA_P256_SHA256", Ed25519Key: "ED25519"} {
		if _, err := keys.CreateKey(ctx, &pb.CreateKeyRequest{Namespace: Namespace, Key: name, Algorithm: algorithm}); err != nil {
			return "", err
		}
	}
	if err := putPolicies(ctx, pb.NewPoliciesClient(conn)); err != nil {
		return "", err
	}
	token, err := pb.NewTokensClient(conn).CreateToken(ctx, &pb.CreateTokenRequest{Principal: principal, Ttl: durationpb.New(tokenTTL)})
	return load.Token(token.GetToken()), err
}

func putPolicies(ctx context.Context, client pb.PoliciesClient) error {
	put := func(name, principal string) error {
		_, err := client.PutPolicy(ctx, &pb.PutPolicyRequest{Name: name, Text: fmt.Sprintf(
			`permit (principal == Token::%q, action in [Action::"encrypter", Action::"decrypter", Action::"signer", Action::"CreateKey"], resource in Namespace::%q);`,
			principal, Namespace)})
		return err
	}
	for i := range policies - 1 {
		other := fmt.Sprintf("other-%d", i)
		if err := put(other, other); err != nil {
			return err
		}
	}
	return put(principal, principal)
}

// MakeTransitKey makes TransitKey, which only the Vault-compatible API can, if there is
// none. The server must be one without TLS.
func (r *Rig) MakeTransitKey(ctx context.Context, s *Server) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("http://%s/v1/%s/keys/%s", s.AddrVault(), Namespace, TransitKey), nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Token", string(r.token))
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // only its status counts
	if answer.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("make a key of transit: %s", answer.Status)
	}
	return nil
}
