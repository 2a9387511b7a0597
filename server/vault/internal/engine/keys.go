package engine

import (
	"context"
	"math"
	"net/url"
	"strconv"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

func keyRoutes() []Route {
	return []Route{
		route("VaultListKeys", List, "keys", (*Engine).listKeys),
		route("VaultReadKey", Get, "keys/:name", (*Engine).readKey),
		route("VaultCreateKey", Put, "keys/:name", (*Engine).createKey),
		route("VaultDeleteKey", Delete, "keys/:name", (*Engine).deleteKey),
		route("VaultConfigureKey", Put, "keys/:name/config", (*Engine).configureKey),
		route("VaultRotateKey", Put, "keys/:name/rotate", (*Engine).rotateKey),
		route("VaultTrimKey", Put, "keys/:name/trim", (*Engine).trimKey),
		route("VaultSoftDeleteKey", Put, "keys/:name/soft-delete", (*Engine).deleteKey),
		route("VaultSoftDeleteKey", Delete, "keys/:name/soft-delete", (*Engine).deleteKey),
		route("VaultRestoreDeletedKey", Put, "keys/:name/soft-delete-restore", (*Engine).restoreDeleted),
		route("VaultReadEngineConfig", Get, "config/keys", (*Engine).readConfig),
		route("VaultWriteEngineConfig", Put, "config/keys", (*Engine).writeConfig),
		route("VaultReadCacheConfig", Get, "cache-config", (*Engine).readCacheConfig),
		route("VaultWriteCacheConfig", Put, "cache-config", (*Engine).writeCacheConfig),
	}
}

const listPage = 1000

// listKeys lists the keys of VAULT framing, by name; where there are none it is, as with
// the original, as if the path did not exist.
func (e *Engine) listKeys(ctx context.Context, q *Query) (*wire.Answer, error) {
	after, limit, err := paging(q.Values)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for page := ""; ; {
		keys, next, err := e.Service.ListKeys(ctx, q.Call, kms.ListKeysRequest{Namespace: q.Namespace, PageSize: listPage, PageToken: page})
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if k.Transit != nil && k.Name > after {
				names = append(names, k.Name)
			}
		}
		if page = next; page == "" || len(names) >= limit {
			break
		}
	}
	if names = names[:min(limit, len(names))]; len(names) == 0 {
		return nil, &kms.Error{Code: kms.NotFound, Reason: keyNotFound}
	}
	return &wire.Answer{Data: map[string]any{"keys": names}}, nil
}

// paging is the part of a list that a query asks for: at most limit names, after a name.
func paging(query url.Values) (after string, limit int, err error) {
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil {
			return "", 0, wire.Invalid("limit", "must be a whole number")
		}
	}
	if limit <= 0 { // there is none
		limit = math.MaxInt
	}
	return query.Get("after"), limit, nil
}

func (e *Engine) readKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	var derivation []byte
	if text := q.Values.Get("context"); text != "" {
		var err error
		if derivation, err = wire.Base64("context", []byte(text)); err != nil {
			return nil, err
		}
	}
	return e.read(ctx, q, derivation)
}

func (e *Engine) read(ctx context.Context, q *Query, derivation []byte) (*wire.Answer, error) {
	info, err := e.Service.ReadTransitKey(ctx, q.Call, kms.ReadTransitRequest{Namespace: q.Namespace, Key: q.key(), Context: derivation})
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Data: described(info)}, nil
}

// described is what the original's read of a key tells.
func described(info kms.TransitKeyInfo) map[string]any {
	k, s := info.Key, info.Settings
	t := k.Transit
	data := map[string]any{
		"name": k.Name, "type": s.Type.Name(), "derived": s.Derived, "latest_version": k.LatestVersion,
		"min_available_version": t.MinAvailableVersion, "min_decryption_version": max(t.MinDecryptionVersion, 1), "min_encryption_version": t.MinEncryptionVersion,
		"deletion_allowed": t.DeletionAllowed, "exportable": k.Exportable, "allow_plaintext_backup": t.PlaintextBackup,
		"supports_encryption": s.Type.Encrypts(), "supports_decryption": s.Type.Decrypts(), "supports_signing": s.Type.Signs(), "supports_derivation": s.Type.Derives(),
		"auto_rotate_period": int64(k.Rotation.Period / time.Second), "imported_key": t.Imported, "soft_deleted": k.State != kms.KeyActive,
		"protection_level": string(k.Protection), // Keywright's own
	}
	if s.Type.Name() == "hmac" {
		data["key_size"] = max(s.KeySize, 32)
	}
	if t.Imported {
		data["imported_key_allow_rotation"] = t.AllowRotation
	}
	if s.Derived {
		data["kdf"], data["convergent_encryption"] = "hkdf_sha256", s.Convergent
		if s.Convergent {
			data["convergent_encryption_version"] = -1 // each version has its own
		}
	}
	if s.Type.Name() != "hmac" {
		data["keys"] = describedVersions(info)
	}
	return data
}

// curveNames are how a read of a key calls curves; other types are called by their own name.
var curveNames = map[string]string{"ecdsa-p256": "P-256", "ecdsa-p384": "P-384", "ecdsa-p521": "P-521"}

func describedVersions(info kms.TransitKeyInfo) map[string]any {
	versions := map[string]any{}
	for _, v := range info.Versions {
		number := strconv.FormatUint(uint64(v.Version), 10)
		if !info.Settings.Type.Asymmetric() {
			versions[number] = v.Created.Unix()
			continue
		}
		name := curveNames[info.Settings.Type.Name()]
		if name == "" {
			name = info.Settings.Type.Name()
		}
		versions[number] = map[string]any{"name": name, "public_key": v.PublicKey, "creation_time": v.Created}
	}
	return versions
}

// createKey leaves a key that exists as it is, and says so, as the original does.
func (e *Engine) createKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	r := q.fields()
	period := wire.Get(r, "auto_rotate_period", r.Duration)
	create := kms.CreateKeyRequest{Namespace: q.Namespace, Key: q.key(), Exportable: wire.Get(r, "exportable", r.Bool),
		Rotation: kms.Rotation{Period: period}, Protection: kms.Protection(wire.Get(r, "protection_level", r.Text)),
		Transit: &kms.TransitOptions{Type: wire.Get(r, "type", r.Text), Derived: wire.Get(r, "derived", r.Bool),
			Convergent: wire.Get(r, "convergent_encryption", r.Bool), KeySize: wire.Get(r, "key_size", r.Int),
			PlaintextBackup: wire.Get(r, "allow_plaintext_backup", r.Bool)}}
	if r.Err != nil {
		return nil, r.Err
	}
	_, err := e.Service.CreateKey(ctx, q.Call, create)
	existed := kms.CodeOf(err) == kms.AlreadyExists
	if err != nil && !existed {
		return nil, err
	}
	answer, err := e.changed(ctx, q)
	if err == nil && existed {
		answer.Warnings = []string{"key " + q.key() + " already existed"}
	}
	return answer, err
}

// changed tells a key after a change. Who may change it but not read it learns nothing
// more than that it was changed.
func (e *Engine) changed(ctx context.Context, q *Query) (*wire.Answer, error) {
	answer, err := e.read(ctx, q, nil)
	if kms.CodeOf(err) == kms.PermissionDenied {
		return &wire.Answer{}, nil
	}
	return answer, err
}

func (e *Engine) deleteKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	_, err := e.Service.DeleteKey(ctx, q.Call, kms.DestroyRequest{Namespace: q.Namespace, Key: q.key()})
	if err != nil {
		return nil, encrypt.worded(err)
	}
	return &wire.Answer{}, nil
}

// restoreDeleted takes back the deletion of the key that last had the name.
func (e *Engine) restoreDeleted(ctx context.Context, q *Query) (*wire.Answer, error) {
	var found kms.Key
	for page := ""; ; {
		keys, next, err := e.Service.ListKeys(ctx, q.Call, kms.ListKeysRequest{Namespace: q.Namespace, PageSize: listPage, PageToken: page, ShowDeleted: true})
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			if k.Name == q.key() && k.State == kms.KeyDeleteScheduled && k.Updated.After(found.Updated) {
				found = k
			}
		}
		if page = next; page == "" {
			break
		}
	}
	if found.ID == 0 {
		return nil, wire.Invalid("", "%s", noEncryptionKey)
	}
	if _, err := e.Service.RestoreKey(ctx, q.Call, kms.RestoreKeyRequest{Namespace: q.Namespace, ID: found.ID}); err != nil {
		return nil, err
	}
	return e.changed(ctx, q)
}

func (e *Engine) configureKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	r := q.fields()
	change := kms.ConfigureTransitRequest{Namespace: q.Namespace, Key: q.key(),
		MinDecryptionVersion: wire.GetOptional(r, "min_decryption_version", r.Version),
		MinEncryptionVersion: wire.GetOptional(r, "min_encryption_version", r.Version),
		DeletionAllowed:      wire.GetOptional(r, "deletion_allowed", r.Bool),
		Exportable:           wire.GetOptional(r, "exportable", r.Bool),
		PlaintextBackup:      wire.GetOptional(r, "allow_plaintext_backup", r.Bool),
		AutoRotatePeriod:     wire.GetOptional(r, "auto_rotate_period", r.Duration)}
	if r.Err != nil {
		return nil, r.Err
	}
	if _, err := e.Service.ConfigureTransitKey(ctx, q.Call, change); err != nil {
		return nil, encrypt.worded(err)
	}
	return e.changed(ctx, q)
}

func (e *Engine) rotateKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	if _, err := e.Service.RotateKey(ctx, q.Call, q.ref()); err != nil {
		if reason(err) == keyNotFound {
			return nil, wire.Invalid("", "key not found")
		}
		return nil, err
	}
	return e.changed(ctx, q)
}

func (e *Engine) trimKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	r := q.fields()
	version := wire.Get(r, "min_available_version", r.Version)
	switch {
	case r.Err != nil:
		return nil, r.Err
	case !r.Has("min_available_version"):
		return nil, wire.Invalid("min_available_version", "missing min_available_version")
	case version == 0:
		return nil, wire.Invalid("min_available_version", "minimum available version should be positive")
	}
	_, err := e.Service.TrimTransitKey(ctx, q.Call, kms.TrimTransitRequest{Namespace: q.Namespace, Key: q.key(), MinAvailableVersion: version})
	if reason(err) == keyNotFound {
		return nil, wire.Invalid("", "invalid key name")
	}
	if err != nil {
		return nil, err
	}
	return e.changed(ctx, q)
}

// readConfig tells whether an encryption creates keys, which the server's configuration says.
func (e *Engine) readConfig(context.Context, *Query) (*wire.Answer, error) {
	return &wire.Answer{Data: map[string]any{"disable_upsert": !e.CreateOnEncrypt}}, nil
}

func (e *Engine) writeConfig(_ context.Context, q *Query) (*wire.Answer, error) {
	r := q.fields()
	disable := wire.Get(r, "disable_upsert", r.Bool)
	if r.Err == nil && r.Has("disable_upsert") && disable == e.CreateOnEncrypt {
		return nil, wire.Invalid("disable_upsert", "is set for the whole server; change vault.create_on_encrypt in its configuration")
	}
	return &wire.Answer{Data: map[string]any{"disable_upsert": !e.CreateOnEncrypt}}, r.Err
}

// readCacheConfig says that the cache has no size of its own: cache.max_bytes bounds it.
func (e *Engine) readCacheConfig(context.Context, *Query) (*wire.Answer, error) {
	return &wire.Answer{Data: map[string]any{"size": 0}}, nil
}

func (e *Engine) writeCacheConfig(_ context.Context, q *Query) (*wire.Answer, error) {
	r := q.fields()
	size := wire.Get(r, "size", r.Int)
	if r.Err == nil && size != 0 && size < 10 {
		return nil, wire.Invalid("size", "must be 0 or a value greater or equal to 10")
	}
	return &wire.Answer{Warnings: []string{"size is ignored: the server's configuration bounds its cache by bytes"}}, r.Err
}
