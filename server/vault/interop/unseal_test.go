package interop

import (
	"testing"

	"github.com/hashicorp/go-kms-wrapping/wrappers/transit/v2"
)

// TestTransitSeal uses the code of Vault's transit seal, from which OpenBao's descends.
func TestTransitSeal(t *testing.T) {
	server := newTarget(t)
	c := newTry(t, server, server.clients()["vault"])
	key := c.key(nil)
	seal := transit.NewWrapper()
	if _, err := seal.SetConfig(t.Context(), transit.WithAddress(server.url), transit.WithToken(server.token),
		transit.WithMountPath("transit/"), transit.WithKeyName(key), transit.WithTlsCaCert(server.ca), transit.WithDisableRenewal("true")); err != nil {
		t.Fatal(err)
	}
	first, err := seal.Encrypt(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c.put("keys/"+key+"/rotate", nil)
	second, err := seal.Encrypt(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if first.KeyInfo.KeyId != "v1" || second.KeyInfo.KeyId != "v2" {
		t.Errorf("the keys are %q and, rotated, %q", first.KeyInfo.KeyId, second.KeyInfo.KeyId)
	}
	if opened, err := seal.Decrypt(t.Context(), first); err != nil || string(opened) != text {
		t.Errorf("%q, %v", opened, err)
	}
}
