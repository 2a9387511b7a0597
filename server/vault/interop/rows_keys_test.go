package interop

import (
	"net/http"
	"slices"
	"strings"
)

// post, get and so on are the methods of rows, as OpenBao documents them; the clients
// send PUT for POST.
const (
	get    = http.MethodGet
	put    = http.MethodPut
	remove = http.MethodDelete
	list   = "LIST"
)

// keyTypes are all types of key: what each can do, as a read of a key tells it.
var keyTypes = []struct {
	name                      string
	encrypts, decrypts, signs bool
	derives                   bool
}{
	{"aes128-gcm96", true, true, false, true},
	{"aes256-gcm96", true, true, false, true},
	{"chacha20-poly1305", true, true, false, true},
	{"xchacha20-poly1305", true, true, false, true},
	{"ed25519", false, false, true, true},
	{"ecdsa-p256", false, false, true, false},
	{"ecdsa-p384", false, false, true, false},
	{"ecdsa-p521", false, false, true, false},
	{"rsa-2048", true, true, true, false},
	{"rsa-3072", true, true, true, false},
	{"rsa-4096", true, true, true, false},
	{"hmac", false, false, false, false},
}

// typeRows tries to make a key of each type, and what it is read as.
func typeRows() (rows []row) {
	for _, kind := range keyTypes {
		rows = append(rows, row{"POST keys/:name", "type `" + kind.name + "`", same, "", func(c *try) {
			read := c.get("keys/"+c.typed(kind.name), nil)
			c.has(read, "type", kind.name)
			c.has(read, "supports_encryption", kind.encrypts)
			c.has(read, "supports_decryption", kind.decrypts)
			c.has(read, "supports_signing", kind.signs)
			c.has(read, "supports_derivation", kind.derives)
		}, nil})
	}
	return rows
}

var keyRows = append(typeRows(), []row{
	{"POST keys/:name", "type, unknown", same, "refused", func(c *try) {
		c.refused(put, "keys/"+c.fresh(), fields{"type": "des"})
	}, nil},
	{"POST keys/:name", "answer", same, "the key, as a read of it", func(c *try) {
		made := c.put("keys/"+c.fresh(), fields{"type": "aes256-gcm96"})
		c.has(made, "latest_version", 1)
		c.has(made, "type", "aes256-gcm96")
	}, nil},
	{"POST keys/:name", "of a key that exists", same, "answers with it, and changes nothing", func(c *try) {
		k := c.typed("aes256-gcm96")
		was := c.encrypt(k, nil)
		c.put("keys/"+k, fields{"type": "aes256-gcm96"})
		c.decrypts(k, was, nil)
		c.has(c.get("keys/"+k, nil), "latest_version", 1)
	}, nil},
	{"POST keys/:name", "name, with a character that it may not have", same, "no such path", func(c *try) {
		if a := c.call(put, "keys/a b", nil); a.status != http.StatusNotFound && a.status != http.StatusBadRequest {
			c.Fatalf("status %d", a.status)
		}
	}, nil},
	{"POST keys/:name", "derived", same, "HKDF-SHA256", func(c *try) {
		read := c.get("keys/"+c.key(fields{"derived": true}), nil)
		c.has(read, "derived", true)
		c.has(read, "kdf", "hkdf_sha256")
		c.refused(put, "keys/"+c.fresh(), fields{"type": "ecdsa-p256", "derived": true})
	}, nil},
	{"POST keys/:name", "convergent_encryption", same, "nonces are made as by version 3, which is read as -1", func(c *try) {
		read := c.get("keys/"+c.key(fields{"derived": true, "convergent_encryption": true}), nil)
		c.has(read, "convergent_encryption", true)
		c.has(read, "convergent_encryption_version", -1)
		c.refused(put, "keys/"+c.fresh(), fields{"convergent_encryption": true})
	}, nil},
	{"POST keys/:name", "exportable", same, "only in a namespace with plaintext_export", func(c *try) {
		c.has(c.get("keys/"+c.key(fields{"exportable": true}), nil), "exportable", true)
		c.has(c.get("keys/"+c.key(nil), nil), "exportable", false)
	}, nil},
	{"POST keys/:name", "allow_plaintext_backup", same, "only in a namespace with plaintext_export", func(c *try) {
		c.has(c.get("keys/"+c.key(fields{"allow_plaintext_backup": true}), nil), "allow_plaintext_backup", true)
	}, nil},
	{"POST keys/:name", "key_size", same, "of hmac: 32 to 512 bytes", func(c *try) {
		c.has(c.get("keys/"+c.key(fields{"type": "hmac", "key_size": 64}), nil), "key_size", 64)
		c.refused(put, "keys/"+c.fresh(), fields{"type": "hmac", "key_size": 31})
		c.refused(put, "keys/"+c.fresh(), fields{"type": "hmac", "key_size": 513})
	}, nil},
	{"POST keys/:name", "key_size, of hmac, left out", better, "32 bytes; OpenBao refuses its own default, 0", func(c *try) {
		c.refused(put, "keys/"+c.fresh(), fields{"type": "hmac"})
	}, func(c *try) {
		c.put("hmac/"+c.key(fields{"type": "hmac"}), fields{"input": b64(text)})
	}},
	{"POST keys/:name", "auto_rotate_period", same, "numbers of seconds and texts such as `24h`", func(c *try) {
		c.has(c.get("keys/"+c.key(fields{"auto_rotate_period": "24h"}), nil), "auto_rotate_period", 86400)
		c.has(c.get("keys/"+c.key(fields{"auto_rotate_period": 7200}), nil), "auto_rotate_period", 7200)
		c.refused(put, "keys/"+c.fresh(), fields{"auto_rotate_period": -1})
	}, nil},
	{"POST keys/:name", "protection_level", better, "`HSM` makes the key in the HSM, which it never leaves: aes-gcm, ecdsa, ed25519", func(c *try) {
		c.key(fields{"protection_level": "HSM"})
	}, func(c *try) {
		k := c.key(fields{"protection_level": "HSM"})
		c.has(c.get("keys/"+k, nil), "protection_level", "HSM")
		c.put("keys/"+k+"/rotate", nil)
		c.decrypts(k, c.encrypt(k, nil), nil)
		c.signs(c.key(fields{"type": "ecdsa-p256", "protection_level": "HSM"}), "", nil)
		c.refused(put, "keys/"+c.fresh(), fields{"protection_level": "HSM", "type": "chacha20-poly1305"})
	}},
	{"POST keys/:name", "auto_rotate_period, under an hour", better, "refused as there, but taken in development mode, to try rotation out", func(c *try) {
		c.refused(put, "keys/"+c.fresh(), fields{"auto_rotate_period": "30m"})
	}, func(c *try) {
		c.has(c.get("keys/"+c.key(fields{"auto_rotate_period": "30m"}), nil), "auto_rotate_period", 1800)
	}},
	{"POST keys/:name", "booleans and numbers as texts", same, "as clients send them", func(c *try) {
		read := c.get("keys/"+c.key(fields{"derived": "true", "auto_rotate_period": "3600"}), nil)
		c.has(read, "derived", true)
		c.has(read, "auto_rotate_period", 3600)
	}, nil},
	{"POST keys/:name", "fields that there are not", same, "ignored", func(c *try) {
		c.key(fields{"deriwed": true})
	}, nil},

	{"GET keys/:name", "keys, of a symmetric key", same, "when each version was made, in seconds", func(c *try) {
		keys := c.inside(c.get("keys/"+c.versions(3, nil), nil), "keys")
		if len(keys) != 3 || !strings.HasPrefix(asText(keys["3"]), "1") {
			c.Fatalf("keys are %v", keys)
		}
	}, nil},
	{"GET keys/:name", "keys, of an asymmetric key", same, "public_key, creation_time and name of each version", func(c *try) {
		for kind, name := range map[string]string{"ed25519": "ed25519", "ecdsa-p256": "P-256", "ecdsa-p384": "P-384", "ecdsa-p521": "P-521", "rsa-2048": "rsa-2048"} {
			version := c.inside(c.inside(c.get("keys/"+c.typed(kind), nil), "keys"), "1")
			c.has(version, "name", name)
			c.text(version, "creation_time")
			if public := c.text(version, "public_key"); kind == "ed25519" {
				c.size(public, 32)
			} else if !strings.HasPrefix(public, "-----BEGIN PUBLIC KEY-----") {
				c.Fatalf("the public key is %s", public)
			}
		}
	}, nil},
	{"GET keys/:name", "context, of a derived ed25519 key", same, "the public key for it", func(c *try) {
		k := c.key(fields{"type": "ed25519", "derived": true})
		public := func(query fields) any {
			return c.inside(c.inside(c.get("keys/"+k, query), "keys"), "1")["public_key"]
		}
		if a, b := public(fields{"context": b64("a")}), public(fields{"context": b64("b")}); a == b || a == "" || public(nil) != "" {
			c.Fatalf("the public keys are %v and %v, and without a context %v", a, b, public(nil))
		}
	}, nil},
	{"GET keys/:name", "other fields", same, "", func(c *try) {
		k := c.key(nil)
		read := c.get("keys/"+k, nil)
		wanted := fields{
			"name": k, "latest_version": 1, "min_decryption_version": 1, "min_encryption_version": 0, "min_available_version": 0,
			"deletion_allowed": false, "derived": false, "exportable": false, "allow_plaintext_backup": false,
			"auto_rotate_period": 0, "imported_key": false, "soft_deleted": false,
		}
		for name, want := range wanted {
			c.has(read, name, want)
		}
	}, nil},
	{"GET keys/:name", "name, of no key", same, "404", func(c *try) { c.absent("keys/" + c.fresh()) }, nil},

	{"LIST keys", "", same, "sorted", func(c *try) {
		a, b := c.key(nil), c.key(nil)
		names, _ := c.done(list, "keys", nil)["keys"].([]any)
		at, then := slices.Index(names, any(a)), slices.Index(names, any(b))
		if at < 0 || then < 0 || !slices.IsSortedFunc(names, func(a, b any) int { return strings.Compare(asText(a), asText(b)) }) {
			c.Fatalf("%s and %s are listed at %d and %d of %v", a, b, at, then, names)
		}
	}, nil},
	{"LIST keys", "after, limit", same, "pages", func(c *try) {
		a := c.key(nil)
		_, all := c.raw(list, "transit/keys", nil)
		names, _ := c.inside(all, "data")["keys"].([]any)
		_, page := c.raw(list, "transit/keys?limit=1&after="+asText(names[0]), nil)
		if got, _ := c.inside(page, "data")["keys"].([]any); len(names) > 1 && (len(got) != 1 || got[0] != names[1]) {
			c.Fatalf("after %v is %v, of %v (made %s)", names[0], got, names, a)
		}
	}, nil},
	{"LIST keys", "as `GET keys?list=true`", same, "", func(c *try) {
		a := c.key(nil)
		status, all := c.raw(get, "transit/keys?list=true", nil)
		if names, _ := c.inside(all, "data")["keys"].([]any); status != http.StatusOK || !slices.Contains(names, any(a)) {
			c.Fatalf("status %d, %v", status, all)
		}
	}, nil},

	{"DELETE keys/:name", "without deletion_allowed", same, "refused", func(c *try) {
		c.refused(remove, "keys/"+c.key(nil), nil)
	}, nil},
	{"DELETE keys/:name", "with deletion_allowed", better, "gone for users at once; until the namespace's delay has passed it can be restored", gone, gone},
	{"DELETE keys/:name/soft-delete", "", better, "a deletion on schedule: the key is destroyed after the delay unless it is restored, so deletion_allowed is asked for; it is not read meanwhile", func(c *try) {
		k := c.key(nil)
		was := c.encrypt(k, nil)
		c.done(remove, "keys/"+k+"/soft-delete", nil)
		c.refused(put, "encrypt/"+k, fields{"plaintext": b64(text)})
		c.notDecrypts(k, was, nil)
		c.has(c.get("keys/"+k, nil), "soft_deleted", true)
	}, func(c *try) {
		k := c.key(nil)
		was := c.encrypt(k, nil)
		c.refused(remove, "keys/"+k+"/soft-delete", nil)
		c.put("keys/"+k+"/config", fields{"deletion_allowed": true})
		c.done(remove, "keys/"+k+"/soft-delete", nil)
		c.refused(put, "encrypt/"+k, fields{"plaintext": b64(text)})
		c.notDecrypts(k, was, nil)
		c.absent("keys/" + k)
	}},
	{"POST keys/:name/soft-delete-restore", "", same, "", func(c *try) {
		k := c.key(nil)
		was := c.encrypt(k, nil)
		c.put("keys/"+k+"/config", fields{"deletion_allowed": true})
		c.done(remove, "keys/"+k+"/soft-delete", nil)
		c.put("keys/"+k+"/soft-delete-restore", nil)
		c.has(c.get("keys/"+k, nil), "soft_deleted", false)
		c.decrypts(k, was, nil)
	}, nil},
}...)

func gone(c *try) {
	k := c.key(nil)
	c.put("keys/"+k+"/config", fields{"deletion_allowed": true})
	c.done(remove, "keys/"+k, nil)
	c.absent("keys/" + k)
	c.refused(put, "decrypt/"+k, fields{"ciphertext": "vault:v1:AAAA"})
}

var configRows = []row{
	{"POST keys/:name/config", "min_decryption_version", same, "ciphertexts of older versions are refused until it is lowered again", func(c *try) {
		k := c.key(nil)
		was := c.encrypt(k, nil)
		c.put("keys/"+k+"/rotate", nil)
		c.put("keys/"+k+"/config", fields{"min_decryption_version": 2})
		c.notDecrypts(k, was, nil)
		read := c.get("keys/"+k, nil)
		c.has(read, "min_decryption_version", 2)
		if keys := c.inside(read, "keys"); len(keys) != 1 {
			c.Fatalf("keys are %v", keys)
		}
		c.put("keys/"+k+"/config", fields{"min_decryption_version": 1})
		c.decrypts(k, was, nil)
	}, nil},
	{"POST keys/:name/config", "min_decryption_version, out of range", same, "refused above the latest and below 0; 0 is 1", func(c *try) {
		k := c.key(nil)
		c.refused(put, "keys/"+k+"/config", fields{"min_decryption_version": 2})
		c.refused(put, "keys/"+k+"/config", fields{"min_decryption_version": -1})
		c.put("keys/"+k+"/config", fields{"min_decryption_version": 0})
		c.has(c.get("keys/"+k, nil), "min_decryption_version", 1)
	}, nil},
	{"POST keys/:name/config", "min_encryption_version", same, "encrypts, signs and HMACs nothing with older versions", func(c *try) {
		k := c.versions(3, nil)
		c.version(c.encrypt(k, fields{"key_version": 1}), 1)
		c.put("keys/"+k+"/config", fields{"min_encryption_version": 2})
		c.has(c.get("keys/"+k, nil), "min_encryption_version", 2)
		c.refused(put, "encrypt/"+k, fields{"plaintext": b64(text), "key_version": 1})
		c.refused(put, "hmac/"+k, fields{"input": b64(text), "key_version": 1})
		c.version(c.encrypt(k, fields{"key_version": 2}), 2)
	}, nil},
	{"POST keys/:name/config", "min_encryption_version, out of range", same, "refused above the latest, and below min_decryption_version unless it is 0", func(c *try) {
		k := c.versions(3, nil)
		c.refused(put, "keys/"+k+"/config", fields{"min_encryption_version": 4})
		c.put("keys/"+k+"/config", fields{"min_decryption_version": 2})
		c.refused(put, "keys/"+k+"/config", fields{"min_encryption_version": 1})
		c.put("keys/"+k+"/config", fields{"min_encryption_version": 0})
	}, nil},
	{"POST keys/:name/config", "deletion_allowed", same, "", func(c *try) {
		k := c.key(nil)
		c.put("keys/"+k+"/config", fields{"deletion_allowed": true})
		c.has(c.get("keys/"+k, nil), "deletion_allowed", true)
		c.put("keys/"+k+"/config", fields{"deletion_allowed": false})
		c.refused(remove, "keys/"+k, nil)
	}, nil},
	{"POST keys/:name/config", "exportable", same, "can be switched on, never off; only in a namespace with plaintext_export", func(c *try) {
		k := c.key(nil)
		c.put("keys/"+k+"/config", fields{"exportable": true})
		c.has(c.get("keys/"+k, nil), "exportable", true)
		c.call(put, "keys/"+k+"/config", fields{"exportable": false})
		c.has(c.get("keys/"+k, nil), "exportable", true)
	}, nil},
	{"POST keys/:name/config", "allow_plaintext_backup", same, "can be switched on, never off; only in a namespace with plaintext_export", func(c *try) {
		k := c.key(nil)
		c.put("keys/"+k+"/config", fields{"allow_plaintext_backup": true})
		c.has(c.get("keys/"+k, nil), "allow_plaintext_backup", true)
		c.call(put, "keys/"+k+"/config", fields{"allow_plaintext_backup": false})
		c.has(c.get("keys/"+k, nil), "allow_plaintext_backup", true)
	}, nil},
	{"POST keys/:name/config", "auto_rotate_period", same, "0 switches it off", func(c *try) {
		k := c.key(fields{"auto_rotate_period": "2h"})
		c.put("keys/"+k+"/config", fields{"auto_rotate_period": "3h"})
		c.has(c.get("keys/"+k, nil), "auto_rotate_period", 10800)
		c.put("keys/"+k+"/config", fields{"auto_rotate_period": "0"})
		c.has(c.get("keys/"+k, nil), "auto_rotate_period", 0)
		c.refused(put, "keys/"+k+"/config", fields{"auto_rotate_period": -1})
	}, nil},
	{"POST keys/:name/config", "answer", same, "the key, as a read of it", func(c *try) {
		k := c.key(nil)
		c.has(c.put("keys/"+k+"/config", fields{"deletion_allowed": true}), "deletion_allowed", true)
	}, nil},
	{"POST keys/:name/config", "name, of no key", same, "refused", func(c *try) {
		c.refused(put, "keys/"+c.fresh()+"/config", fields{"deletion_allowed": true})
	}, nil},

	{"POST keys/:name/rotate", "", same, "answers with the key; older versions decrypt", func(c *try) {
		k := c.key(nil)
		was := c.encrypt(k, nil)
		c.has(c.put("keys/"+k+"/rotate", nil), "latest_version", 2)
		c.version(c.encrypt(k, nil), 2)
		c.decrypts(k, was, nil)
	}, nil},
	{"POST keys/:name/rotate", "name, of no key", same, "refused", func(c *try) {
		c.refused(put, "keys/"+c.fresh()+"/rotate", nil)
	}, nil},

	{"POST keys/:name/trim", "min_available_version", better, "versions are destroyed after the namespace's delay, and can be restored until then", trimmed, trimmed},
	{"POST keys/:name/trim", "min_available_version, too high", same, "refused above the others, while min_encryption_version is 0, and going back", func(c *try) {
		k := c.versions(3, nil)
		c.refused(put, "keys/"+k+"/trim", fields{"min_available_version": 2})
		c.put("keys/"+k+"/config", fields{"min_decryption_version": 2, "min_encryption_version": 2})
		c.refused(put, "keys/"+k+"/trim", fields{"min_available_version": 3})
		c.put("keys/"+k+"/trim", fields{"min_available_version": 2})
		c.refused(put, "keys/"+k+"/trim", fields{"min_available_version": 1})
		c.refused(put, "keys/"+k+"/trim", nil)
	}, nil},
	{"POST config/keys", "disable_upsert", better, "is the server's `create_on_encrypt`: read here, set there", func(c *try) {
		c.has(c.get("config/keys", nil), "disable_upsert", false)
	}, func(c *try) {
		c.has(c.get("config/keys", nil), "disable_upsert", true)
		c.put("config/keys", fields{"disable_upsert": true})
		c.refused(put, "config/keys", fields{"disable_upsert": false})
	}},
	{"POST cache-config", "size", better, "taken without effect: the cache is the server's `cache_bytes`", func(c *try) {
		c.put("cache-config", fields{"size": 500})
		c.has(c.get("cache-config", nil), "size", 500)
	}, func(c *try) {
		c.put("cache-config", fields{"size": 500})
		c.has(c.get("cache-config", nil), "size", 0)
	}},
}

func trimmed(c *try) {
	k := c.key(nil)
	was := c.encrypt(k, nil)
	c.put("keys/"+k+"/rotate", nil)
	c.put("keys/"+k+"/config", fields{"min_decryption_version": 2, "min_encryption_version": 2})
	c.put("keys/"+k+"/trim", fields{"min_available_version": 2})
	c.has(c.get("keys/"+k, nil), "min_available_version", 2)
	c.notDecrypts(k, was, nil)
	c.refused(put, "keys/"+k+"/config", fields{"min_decryption_version": 1})
}
