package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/store"
)

// While the device is away, what is unwrapped serves on in full; what needs the
// device is refused and leaves nothing behind.
func TestDeviceAway(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.namespace("cold")
	in.key("pay", "card", "")
	in.key("cold", "card", "")
	cold := in.encrypt("cold", "card", "cold")
	in.close()
	in.open()
	sealed := in.encrypt("pay", "card", "secret") // unwraps pay, not cold
	revision := must[store.Revision](t)(in.store.Revision(t.Context()))
	in.device.setAway(true)

	_, err := in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "new"})
	wantCode(t, err, Unavailable, "HSM")
	_, err = in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "cold", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, Unavailable, "HSM")
	_, err = in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "cold", Ciphertext: cold})
	wantCode(t, err, Unavailable, "HSM")
	_, err = in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "cold", Key: "new"})
	wantCode(t, err, Unavailable, "HSM")
	_, err = in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "cold", Key: "card"})
	wantCode(t, err, Unavailable, "HSM")
	if now := must[store.Revision](t)(in.store.Revision(t.Context())); now != revision {
		t.Errorf("refused changes moved the store from revision %d to %d", revision, now)
	}

	in.wantOpens("pay", sealed, "secret")
	in.wantOpens("pay", in.encrypt("pay", "card", "more"), "more")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	in.wantOpens("pay", sealed, "secret")
	in.key("pay", "new", "AES_256_GCM")
	in.wantOpens("pay", in.encrypt("pay", "new", "more"), "more")
	must[GenerateRandomResponse](t)(in.GenerateRandom(t.Context(), admin(), &GenerateRandomRequest{Namespace: "pay", Size: 8}))

	in.device.setAway(false)
	in.wantOpens("cold", cold, "cold")
	in.namespace("new")
}

func TestDeviceHealth(t *testing.T) {
	in := newInstallation(t)
	problem := func() string { return in.Health(t.Context()).HSM.Problem }
	events := func() []string {
		var outcomes []string
		for _, e := range in.entries(audit.Filter{Action: "HSMHealth"}) {
			outcomes = append(outcomes, e.Outcome)
		}
		return outcomes
	}
	soft := in.devices[DefaultToken]
	in.probe(t.Context(), soft)
	in.device.setAway(true)
	if in.probe(t.Context(), soft); problem() != "" || len(events()) != 0 {
		t.Errorf("one failed probe is noise, health says %q, events %v", problem(), events())
	}
	for range 3 {
		in.probe(t.Context(), soft)
	}
	if problem() == "" || in.Health(t.Context()).HSM.Healthy || !slices.Equal(events(), []string{"UNAVAILABLE"}) {
		t.Errorf("the device is away; health says %q, events %v", problem(), events())
	}
	in.device.setAway(false)
	if in.probe(t.Context(), soft); soft.failed != 0 || problem() != "" || !in.Health(t.Context()).HSM.Healthy || !slices.Equal(events(), []string{"UNAVAILABLE", "OK"}) {
		t.Errorf("the device is back; health says %q, events %v", problem(), events())
	}
}

// Open finds, it never makes: a device that is not the right one is refused and
// left as it is, and so are store and log.
func TestOpenRefusesWrongDevice(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	right := in.device
	devices := map[string]func(d *softDevice){
		"away":        func(d *softDevice) { d.away = true },
		"empty token": func(d *softDevice) { clear(d.roots); clear(d.signers) },
		"other root":  func(d *softDevice) { swap(d.roots, func([]byte) []byte { return make([]byte, 32) }) },
		"no signer":   func(d *softDevice) { clear(d.signers) },
		"other signer": func(d *softDevice) {
			swap(d.signers, func(ed25519.PrivateKey) ed25519.PrivateKey { return newSigningKey(t) })
		},
	}
	in.close()
	for name, spoil := range devices {
		in.device = right.clone()
		spoil(in.device)
		objects := in.device.objects()
		c := in.parts()
		revision, next := must[store.Revision](t)(in.store.Revision(t.Context())), in.audit.Next()
		if s, err := Open(t.Context(), c); err == nil {
			s.stopJobs()
			t.Errorf("%s: Open succeeded", name)
		}
		if in.device.objects() != objects || must[store.Revision](t)(in.store.Revision(t.Context())) != revision || in.audit.Next() != next {
			t.Errorf("%s: Open changed the device, the store or the log", name)
		}
		in.closeParts()
	}
	in.device = right
	in.open()
	in.wantOpens("pay", sealed, "secret")
}

func (d *softDevice) clone() *softDevice {
	c := newDevice()
	for id, root := range d.roots {
		c.roots[id] = root
	}
	for id, signer := range d.signers {
		c.signers[id] = signer
	}
	return c
}

func swap[V any](m map[ObjectID]V, f func(V) V) {
	for id, v := range m {
		m[id] = f(v)
	}
}

func newSigningKey(t *testing.T) ed25519.PrivateKey {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func TestOpenFailsWithoutTrace(t *testing.T) {
	in := newInstallation(t)
	in.close()
	c := in.parts()
	defer in.store.Close()
	if err := in.audit.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), c); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Open = %v without an audit log", err)
	}
}

func TestDeviceErrorCodes(t *testing.T) {
	for err, code := range map[error]Code{
		errAway: Unavailable, context.Canceled: Canceled, context.DeadlineExceeded: DeadlineExceeded,
		ErrUnwrap: DataLoss, domain.ErrNotAuthentic: DataLoss,
	} {
		if got := CodeOf(hsmError("path", fmt.Errorf("call: %w", err))); got != code {
			t.Errorf("%v has the code %s, want %s", err, got, code)
		}
	}
}
