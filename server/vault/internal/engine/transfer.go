package engine

import (
	"context"
	"encoding/base64"
	"strconv"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

func transferRoutes() []Route {
	return []Route{
		route("VaultWrappingKey", Get, "wrapping_key", (*Engine).wrappingKey),
		route("VaultImportKey", Put, "keys/:name/import", (*Engine).importKey),
		route("VaultImportVersion", Put, "keys/:name/import_version", (*Engine).importVersion),
		route("VaultExportKey", Get, "export/:type/:name", (*Engine).exportKey),
		route("VaultExportKey", Get, "export/:type/:name/:version", (*Engine).exportKey),
		route("VaultBackupKey", Get, "backup/:name", (*Engine).backupKey),
		route("VaultRestoreKey", Put, "restore", (*Engine).restoreKey),
		route("VaultRestoreKey", Put, "restore/:name", (*Engine).restoreKey),
	}
}

func (e *Engine) wrappingKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	key, err := e.Service.TransitWrappingKey(ctx, q.Call, q.Namespace)
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Data: map[string]any{"public_key": key}}, nil
}

// imported reads what both kinds of import have.
func (q *Query) imported(r *wire.Reader) (kms.ImportTransitRequest, error) {
	request := kms.ImportTransitRequest{Namespace: q.Namespace, Key: q.key(), Hash: wire.Get(r, "hash_function", r.Text)}
	text := wire.Get(r, "ciphertext", r.Text)
	switch {
	case r.Err != nil:
		return request, r.Err
	case r.Has("public_key"):
		return request, wire.Invalid("public_key", "is not taken: a key without its private part is none of this server's")
	case text == "":
		return request, wire.Invalid("ciphertext", "is missing; give the wrapped key")
	}
	var err error
	if request.Ciphertext, err = base64.StdEncoding.DecodeString(text); err != nil {
		return request, wire.Invalid("ciphertext", "error unwrapping key: ciphertext is not base64")
	}
	return request, nil
}

func (e *Engine) importKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	r := q.fields()
	request, err := q.imported(r)
	if err != nil {
		return nil, err
	}
	request.Options = kms.TransitOptions{Type: wire.Get(r, "type", r.Text), Derived: wire.Get(r, "derived", r.Bool),
		PlaintextBackup: wire.Get(r, "allow_plaintext_backup", r.Bool)}
	request.Exportable, request.AllowRotation = wire.Get(r, "exportable", r.Bool), wire.Get(r, "allow_rotation", r.Bool)
	request.AutoRotate = wire.Get(r, "auto_rotate_period", r.Duration)
	request.Protection = kms.Protection(wire.Get(r, "protection_level", r.Text))
	switch {
	case r.Err != nil:
		return nil, r.Err
	case request.AutoRotate > 0 && !request.AllowRotation:
		return nil, wire.Invalid("auto_rotate_period", "allow_rotation must be set to true if auto_rotate_period is")
	}
	if _, err := e.Service.ImportTransitKey(ctx, q.Call, request); err != nil {
		return nil, err
	}
	return &wire.Answer{}, nil
}

func (e *Engine) importVersion(ctx context.Context, q *Query) (*wire.Answer, error) {
	request, err := q.imported(q.fields())
	if err != nil {
		return nil, err
	}
	request.Version = true
	if _, err := e.Service.ImportTransitKey(ctx, q.Call, request); err != nil {
		return nil, encrypt.worded(err)
	}
	return &wire.Answer{}, nil
}

func (e *Engine) exportKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	export := kms.ExportTransitRequest{Namespace: q.Namespace, Key: q.key(), Kind: transit.ExportKind(q.Path.Get("type"))}
	switch export.Kind {
	case transit.EncryptionKey, transit.SigningKey, transit.HMACKey, transit.PublicKey:
	default:
		return nil, wire.Invalid("type", "invalid export type: %q", q.Path.Get("type"))
	}
	if format := q.Values.Get("format"); format != "" && format != "raw" {
		return nil, wire.Invalid("format", "invalid format: %q; only raw is offered", format)
	}
	switch version := q.Path.Get("version"); version {
	case "":
	case "latest":
		export.Latest = true
	default:
		number, err := strconv.ParseUint(version, 10, 32)
		if err != nil || number == 0 {
			return nil, wire.Invalid("version", "invalid key version")
		}
		export.Version = uint32(number)
	}
	exported, err := e.Service.ExportTransitKey(ctx, q.Call, export)
	if err != nil {
		if reason(err) == versionNotFound {
			return nil, wire.Invalid("version", "version does not exist or cannot be found")
		}
		return nil, err
	}
	keys := map[string]string{}
	for number, key := range exported.Keys {
		keys[strconv.FormatUint(uint64(number), 10)] = key
	}
	return &wire.Answer{Data: map[string]any{"name": exported.Key.Name, "type": exported.Key.Transit.Type, "keys": keys}}, nil
}

func (e *Engine) backupKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	backup, err := e.Service.BackupTransitKey(ctx, q.Call, kms.BackupTransitRequest{Namespace: q.Namespace, Key: q.key()})
	if err != nil {
		return nil, encrypt.worded(err)
	}
	return &wire.Answer{Data: map[string]any{"backup": backup}}, nil
}

func (e *Engine) restoreKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	r := q.fields()
	backup, name, force := wire.Get(r, "backup", r.Text), q.Path.Get("name"), wire.Get(r, "force", r.Bool)
	if name == "" {
		name = wire.Get(r, "name", r.Text)
	}
	switch {
	case r.Err != nil:
		return nil, r.Err
	case backup == "":
		return nil, wire.Invalid("backup", "'backup' must be supplied")
	case force:
		return nil, wire.Invalid("force", "is refused: it would replace a key whose ciphertexts nothing could open then; delete the key first, or restore under another name")
	}
	_, err := e.Service.RestoreTransitKey(ctx, q.Call, kms.RestoreTransitRequest{Namespace: q.Namespace, Key: name, Backup: backup})
	if err != nil {
		return nil, err
	}
	return &wire.Answer{}, nil
}
