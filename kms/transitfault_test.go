package kms

import (
	"encoding/json"
)

// newTransitKey makes a key of VAULT framing, of whose versions some can be trimmed.
func (in *scene) newTransitKey() {
	in.transitKey("vault", TransitOptions{})
	for range 3 {
		in.rotate("vault")
	}
	must[Key](in.t)(in.configure(ConfigureTransitRequest{Key: "vault", MinDecryptionVersion: new(uint32(3)), MinEncryptionVersion: new(uint32(3))}))
}

// text is all that is told of a key.
func (in *scene) text(k Key) string { return string(must[[]byte](in.t)(json.Marshal(k))) }

var transitMutations = []mutation{
	{name: "create key of VAULT framing", do: func(in *scene, i string) error {
		return second(in.CreateKey(in.t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "newvault", Transit: &TransitOptions{}, Idempotency: i}))
	}},
	{name: "configure", do: func(in *scene, i string) error {
		return second(in.configure(ConfigureTransitRequest{Key: "vault", MinEncryptionVersion: new(uint32(4)), DeletionAllowed: new(true), Idempotency: i}))
	}},
	{name: "trim", do: func(in *scene, i string) error {
		return second(in.TrimTransitKey(in.t.Context(), admin(), TrimTransitRequest{Namespace: "pay", Key: "vault", MinAvailableVersion: 3, Idempotency: i}))
	}},
	{name: "restore backup", do: func(in *scene, i string) error {
		return second(in.restored(RestoreTransitRequest{Key: "restored", Backup: transitBackup(in.t, "aes256-gcm96"), Idempotency: i}))
	}},
	{name: "rotate key of VAULT framing", do: func(in *scene, i string) error {
		return second(in.RotateKey(in.t.Context(), admin(), KeyRef{Namespace: "pay", Key: "vault", Idempotency: i}))
	}},
}
