package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"hash"
	"net/http"
	"strings"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

var moveRows = []row{
	{"GET wrapping_key", "", same, "RSA of 4096 bits", func(c *try) {
		if bits := c.wrappingKey().N.BitLen(); bits != 4096 {
			c.Fatalf("%d bits", bits)
		}
	}, nil},
	{"POST keys/:name/import", "ciphertext, type", same, "", func(c *try) {
		for _, kind := range keyTypes[:4] { // the symmetric ones
			size := 32
			if kind.name == "aes128-gcm96" {
				size = 16
			}
			k := c.imported(someKey(size), fields{"type": kind.name, "exportable": true})
			c.decrypts(k, c.encrypt(k, nil), nil)
			c.has(c.inside(c.get("export/encryption-key/"+k, nil), "keys"), "1", base64.StdEncoding.EncodeToString(someKey(size)))
		}
		k := c.imported(ownKey(), fields{"type": "ecdsa-p256"})
		c.signs(k, "", nil)
		c.has(c.get("keys/"+k, nil), "imported_key", true)
	}, nil},
	{"POST keys/:name/import", "ciphertext, of the wrong size or type", same, "refused", func(c *try) {
		c.refused(put, "keys/"+c.fresh()+"/import", fields{"type": "aes256-gcm96", "ciphertext": c.wrapped(make([]byte, 31), "SHA256")})
		c.refused(put, "keys/"+c.fresh()+"/import", fields{"type": "ed25519", "ciphertext": c.wrapped(ownKey(), "SHA256")})
		c.refused(put, "keys/"+c.fresh()+"/import", fields{"type": "aes256-gcm96", "ciphertext": b64("short")})
	}, nil},
	{"POST keys/:name/import", "hash_function", same, "", func(c *try) {
		for name := range oaepHashes {
			c.put("keys/"+c.fresh()+"/import", fields{"type": "aes256-gcm96", "hash_function": name, "ciphertext": c.wrapped(someKey(32), name)})
		}
		c.refused(put, "keys/"+c.fresh()+"/import", fields{"type": "aes256-gcm96", "hash_function": "MD5", "ciphertext": c.wrapped(someKey(32), "SHA1")})
	}, nil},
	{"POST keys/:name/import", "allow_rotation", same, "", func(c *try) {
		c.refused(put, "keys/"+c.imported(someKey(32), nil)+"/rotate", nil)
		k := c.imported(someKey(32), fields{"allow_rotation": true})
		c.has(c.get("keys/"+k, nil), "imported_key_allow_rotation", true)
		c.put("keys/"+k+"/rotate", nil)
		c.version(c.encrypt(k, nil), 2)
	}, nil},
	{"POST keys/:name/import", "derived, context", same, "", func(c *try) {
		k := c.imported(someKey(32), fields{"derived": true})
		c.decrypts(k, c.encrypt(k, fields{"context": b64("x")}), fields{"context": b64("x")})
	}, nil},
	{"POST keys/:name/import", "exportable, allow_plaintext_backup", same, "", func(c *try) {
		read := c.get("keys/"+c.imported(someKey(32), fields{"exportable": true, "allow_plaintext_backup": true}), nil)
		c.has(read, "exportable", true)
		c.has(read, "allow_plaintext_backup", true)
	}, nil},
	{"POST keys/:name/import", "auto_rotate_period", same, "needs allow_rotation", func(c *try) {
		read := c.get("keys/"+c.imported(someKey(32), fields{"allow_rotation": true, "auto_rotate_period": "2h"}), nil)
		c.has(read, "auto_rotate_period", 7200)
		c.refused(put, "keys/"+c.fresh()+"/import", fields{"auto_rotate_period": "2h", "ciphertext": c.wrapped(someKey(32), "SHA256")})
	}, nil},
	{"POST keys/:name/import", "of a key that exists", same, "refused", func(c *try) {
		c.refused(put, "keys/"+c.key(nil)+"/import", fields{"ciphertext": c.wrapped(someKey(32), "SHA256")})
	}, nil},
	{"POST keys/:name/import", "public_key", missing, "keys without their private part are none of Keywright's; verify elsewhere", func(c *try) {
		c.put("keys/"+c.fresh()+"/import", fields{"type": "ecdsa-p256", "public_key": ownPublicKey()})
	}, func(c *try) {
		c.refused(put, "keys/"+c.fresh()+"/import", fields{"type": "ecdsa-p256", "public_key": ownPublicKey()})
	}},
	{"POST keys/:name/import_version", "ciphertext", same, "", func(c *try) {
		k := c.imported(someKey(32), nil)
		was := c.encrypt(k, nil)
		c.put("keys/"+k+"/import_version", fields{"ciphertext": c.wrapped(someKey(32), "SHA256")})
		c.version(c.encrypt(k, nil), 2)
		c.decrypts(k, was, nil)
	}, nil},
	{"POST keys/:name/import_version", "hash_function", same, "", func(c *try) {
		k := c.imported(someKey(32), nil)
		c.put("keys/"+k+"/import_version", fields{"hash_function": "SHA512", "ciphertext": c.wrapped(someKey(32), "SHA512")})
	}, nil},
	{"POST keys/:name/import_version", "of a key that was made here", same, "refused", func(c *try) {
		c.refused(put, "keys/"+c.key(nil)+"/import_version", fields{"ciphertext": c.wrapped(someKey(32), "SHA256")})
	}, nil},
	{"POST keys/:name/import_version", "public_key, version", missing, "as of import", func(c *try) {
		k := c.fresh()
		c.put("keys/"+k+"/import", fields{"type": "ecdsa-p256", "public_key": ownPublicKey()})
		c.put("keys/"+k+"/import_version", fields{"public_key": ownPublicKey()})
	}, func(c *try) {
		k := c.imported(ownKey(), fields{"type": "ecdsa-p256"})
		c.refused(put, "keys/"+k+"/import_version", fields{"public_key": ownPublicKey()})
	}},

	{"GET export/:key_type/:name(/:version)", "key_type `encryption-key`", same, "", func(c *try) {
		k := c.versions(2, fields{"exportable": true})
		made := c.get("export/encryption-key/"+k, nil)
		c.has(made, "name", k)
		c.has(made, "type", "aes256-gcm96")
		c.size(c.text(c.inside(made, "keys"), "1"), 32)
		c.size(c.text(c.inside(made, "keys"), "2"), 32)
	}, nil},
	{"GET export/:key_type/:name(/:version)", "key_type `signing-key`", same, "", func(c *try) {
		k := c.key(fields{"type": "ecdsa-p256", "exportable": true})
		if key := c.text(c.inside(c.get("export/signing-key/"+k, nil), "keys"), "1"); !strings.HasPrefix(key, "-----BEGIN EC PRIVATE KEY-----") {
			c.Fatal("not the PEM of an EC private key")
		}
	}, nil},
	{"GET export/:key_type/:name(/:version)", "key_type `hmac-key`", same, "", func(c *try) {
		k := c.key(fields{"exportable": true})
		c.size(c.text(c.inside(c.get("export/hmac-key/"+k, nil), "keys"), "1"), 32)
	}, nil},
	{"GET export/:key_type/:name(/:version)", "key_type `public-key`", same, "of any key", func(c *try) {
		k := c.typed("rsa-2048")
		if key := c.text(c.inside(c.get("export/public-key/"+k, nil), "keys"), "1"); !strings.HasPrefix(key, "-----BEGIN PUBLIC KEY-----") {
			c.Fatalf("the public key is %s", key)
		}
	}, nil},
	{"GET export/:key_type/:name(/:version)", "key_type, that the key has not", same, "refused", func(c *try) {
		c.refused(get, "export/signing-key/"+c.key(fields{"exportable": true}), nil)
		c.refused(get, "export/other-key/"+c.key(fields{"exportable": true}), nil)
	}, nil},
	{"GET export/:key_type/:name(/:version)", "version", same, "a number or `latest`", func(c *try) {
		k := c.versions(3, fields{"exportable": true})
		for version, is := range map[string]string{"2": "2", "latest": "3"} {
			keys := c.inside(c.get("export/encryption-key/"+k+"/"+version, nil), "keys")
			if c.text(keys, is); len(keys) != 1 {
				c.Fatalf("keys of %s are %d", version, len(keys))
			}
		}
		c.refused(get, "export/encryption-key/"+k+"/4", nil)
	}, nil},
	{"GET export/:key_type/:name(/:version)", "of a key that is not exportable", same, "refused", func(c *try) {
		c.refused(get, "export/encryption-key/"+c.key(nil), nil)
	}, nil},
	{"GET export/:key_type/:name(/:version)", "format", missing, "the default only", func(c *try) {
		k := c.key(fields{"type": "ecdsa-p256", "exportable": true})
		c.text(c.inside(c.get("export/signing-key/"+k, fields{"format": "der"}), "keys"), "1")
	}, func(c *try) {
		c.refused(get, "export/signing-key/"+c.key(fields{"type": "ecdsa-p256", "exportable": true}), fields{"format": "der"})
	}},
	{"GET byok-export/:destination/:source(/:version)", "destination, source, version, hash", missing, "`keywright key export` wraps keys", func(c *try) {
		k := c.key(fields{"exportable": true})
		c.put("keys/"+k+"-to/import", fields{"type": "rsa-4096", "public_key": c.text(c.get("wrapping_key", nil), "public_key")})
		c.get("byok-export/"+k+"-to/"+k, nil)
	}, func(c *try) {
		c.refused(get, "byok-export/"+c.fresh()+"/"+c.key(fields{"exportable": true}), nil, http.StatusNotFound)
	}},

	{"GET backup/:name", "", same, "with exportable and allow_plaintext_backup, in a namespace with plaintext_export", func(c *try) {
		c.text(c.get("backup/"+c.key(movable), nil), "backup")
		c.refused(get, "backup/"+c.key(fields{"exportable": true}), nil)
	}, nil},
	{"POST restore(/:name)", "backup", same, "OpenBao's and Vault's", func(c *try) {
		k := c.versions(2, movable)
		was := c.encrypt(k, fields{"key_version": 1})
		backup := c.text(c.get("backup/"+k, nil), "backup")
		c.put("restore/"+k+"-new", fields{"backup": backup})
		c.decrypts(k+"-new", was, nil)
		c.has(c.get("keys/"+k+"-new", nil), "latest_version", 2)
	}, nil},
	{"POST restore(/:name)", "name, that is taken", same, "refused", func(c *try) {
		k := c.key(movable)
		backup := c.text(c.get("backup/"+k, nil), "backup")
		c.refused(put, "restore/"+k, fields{"backup": backup})
		c.refused(put, "restore", fields{"backup": backup})
	}, nil},
	{"POST restore(/:name)", "backup, malformed", same, "refused", func(c *try) {
		c.refused(put, "restore/"+c.fresh(), fields{"backup": "not base64!"})
		c.refused(put, "restore/"+c.fresh(), fields{"backup": b64("not JSON")})
		c.refused(put, "restore/"+c.fresh(), nil)
	}, nil},
	{"POST restore(/:name)", "backup, of nothing", better, "refused, where OpenBao drops the connection", func(c *try) {
		if a, err := c.client.call(put, "transit/restore/"+c.fresh(), fields{"backup": b64("{}")}); err == nil {
			c.Fatalf("status %d, %q", a.status, a.errors)
		}
	}, func(c *try) {
		c.refused(put, "restore/"+c.fresh(), fields{"backup": b64("{}")})
	}},
	{"POST restore(/:name)", "force", missing, "never destroys a key on the way: delete it, or choose another name", func(c *try) {
		k := c.key(movable)
		c.put("restore/"+k, fields{"backup": c.text(c.get("backup/"+k, nil), "backup"), "force": true})
	}, func(c *try) {
		k := c.key(movable)
		c.refused(put, "restore/"+k, fields{"backup": c.text(c.get("backup/"+k, nil), "backup"), "force": true})
	}},
}

var movable = fields{"exportable": true, "allow_plaintext_backup": true}

var otherRows = []row{
	{"POST random(/:source)(/:bytes)", "bytes", same, "in the path or the body; 32 unless named", func(c *try) {
		c.size(c.text(c.put("random/16", nil), "random_bytes"), 16)
		c.size(c.text(c.put("random", fields{"bytes": 24}), "random_bytes"), 24)
		c.size(c.text(c.put("random", nil), "random_bytes"), 32)
		c.refused(put, "random/0", nil)
		c.refused(put, "random", fields{"bytes": 1 << 20})
	}, nil},
	{"POST random(/:source)(/:bytes)", "format", same, "base64 (default) or hex", func(c *try) {
		if made := c.text(c.put("random/16", fields{"format": "hex"}), "random_bytes"); len(made) != 32 {
			c.Fatalf("%s", made)
		}
		c.refused(put, "random/16", fields{"format": "octal"})
	}, nil},
	{"POST random(/:source)(/:bytes)", "source", better, "taken, and always served from the token and the kernel together", func(c *try) {
		c.size(c.text(c.put("random/platform/16", nil), "random_bytes"), 16)
	}, func(c *try) {
		for _, source := range []string{"platform", "seal", "all"} {
			c.size(c.text(c.put("random/"+source+"/16", nil), "random_bytes"), 16)
		}
	}},
	{"POST hash(/:algorithm)", "input, algorithm", same, "", func(c *try) {
		c.has(c.put("hash", fields{"input": b64("abc")}), "sum", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
		for _, hash := range hashes[1:] {
			a := c.text(c.put("hash/"+hash, fields{"input": b64("abc")}), "sum")
			c.has(c.put("hash", fields{"input": b64("abc"), "algorithm": hash}), "sum", a)
		}
		c.refused(put, "hash/md5", fields{"input": b64("abc")})
	}, nil},
	{"POST hash(/:algorithm)", "format", same, "hex (default) or base64", func(c *try) {
		c.size(c.text(c.put("hash", fields{"input": b64("abc"), "format": "base64"}), "sum"), 32)
		c.refused(put, "hash", fields{"input": b64("abc"), "format": "octal"})
	}, nil},
	{"POST keys/:name/csr", "version, csr", missing, "no certificates: sign by the API and a tool of the CA's", func(c *try) {
		c.text(c.put("keys/"+c.typed("ecdsa-p256")+"/csr", nil), "csr")
	}, func(c *try) {
		c.refused(put, "keys/"+c.typed("ecdsa-p256")+"/csr", nil, http.StatusNotFound)
	}},
	{"POST keys/:name/set-certificate", "version, certificate_chain", missing, "no certificates", func(c *try) {
		c.refused(put, "keys/"+c.typed("ecdsa-p256")+"/set-certificate", fields{"certificate_chain": "none"})
	}, func(c *try) {
		c.refused(put, "keys/"+c.typed("ecdsa-p256")+"/set-certificate", fields{"certificate_chain": "none"}, http.StatusNotFound)
	}},
	{"GET /sys/health", "", same, "without a token", func(c *try) {
		status, health := c.raw(get, "sys/health", nil, "X-Vault-Token", "")
		c.has(health, "initialized", true)
		c.has(health, "sealed", false)
		if status != http.StatusOK {
			c.Fatalf("status %d", status)
		}
	}, nil},
	{"GET /sys/seal-status", "", same, "without a token", func(c *try) {
		_, seal := c.raw(get, "sys/seal-status", nil, "X-Vault-Token", "")
		c.has(seal, "initialized", true)
		c.has(seal, "sealed", false)
	}, nil},
	{"GET /auth/token/lookup-self", "", same, "", func(c *try) {
		self := c.get("/auth/token/lookup-self", nil)
		for _, name := range []string{"ttl", "policies", "display_name", "renewable"} {
			if _, is := self[name]; !is {
				c.Fatalf("there is no %s in %v", name, self)
			}
		}
	}, nil},
	{"POST /auth/token/renew-self", "increment", same, "a token that cannot be renewed is answered with what is left of it", func(c *try) {
		if a := c.call(put, "/auth/token/renew-self", fields{"increment": 0}); a.status != 0 && a.status != http.StatusBadRequest {
			c.Fatalf("status %d, %q", a.status, a.errors)
		}
	}, nil},
	{"any", "no token, or a wrong one", same, "403 with `permission denied`", func(c *try) {
		k := c.key(nil)
		for _, token := range []string{"", "wrong"} {
			status, answered := c.raw(put, "transit/encrypt/"+k, fields{"plaintext": b64(text)}, "X-Vault-Token", token)
			if status != http.StatusForbidden || !strings.Contains(asText(answered["errors"]), "permission denied") {
				c.Fatalf("token %q: status %d, %v", token, status, answered)
			}
		}
	}, nil},
	{"any", "`Authorization: Bearer`", same, "instead of X-Vault-Token", func(c *try) {
		status, answered := c.raw(get, "transit/keys/"+c.key(nil), nil, "X-Vault-Token", "", "Authorization", "Bearer "+c.token)
		if status != http.StatusOK {
			c.Fatalf("status %d, %v", status, answered)
		}
	}, nil},
	{"any", "no Content-Type", same, "", func(c *try) {
		status, answered := c.raw(put, "transit/encrypt/"+c.key(nil), fields{"plaintext": b64(text)})
		if status != http.StatusOK {
			c.Fatalf("status %d, %v", status, answered)
		}
	}, nil},
	{"any", "a body that is not JSON", same, "refused", func(c *try) {
		status, answered := c.raw(put, "transit/encrypt/"+c.key(nil), "{")
		if status != http.StatusBadRequest || answered["errors"] == nil {
			c.Fatalf("status %d, %v", status, answered)
		}
	}, nil},
	{"any", "a path that there is not", same, "404", func(c *try) {
		c.refused(put, "nonsense/"+c.fresh(), fields{}, http.StatusNotFound)
	}, nil},
	{"any", "a mount that there is not", same, "403, as to whomever no policy lets in; OpenBao's root is told 404", func(c *try) {
		a := c.call(put, "/nowhere/encrypt/k", fields{"plaintext": b64(text)})
		if root := c.peer; root && a.status != http.StatusNotFound || !root && a.status != http.StatusForbidden {
			c.Fatalf("status %d, %q", a.status, a.errors)
		}
	}, nil},
	{"any", "a method that there is not", same, "405", func(c *try) {
		if status, answered := c.raw(remove, "transit/encrypt/"+c.key(nil), nil); status != http.StatusMethodNotAllowed {
			c.Fatalf("status %d, %v", status, answered)
		}
	}, nil},
	{"any", "the envelope", same, "request_id, lease_id, lease_duration, renewable, data, auth, warnings", func(c *try) {
		_, answered := c.raw(get, "transit/keys/"+c.key(nil), nil)
		for _, name := range []string{"request_id", "lease_id", "lease_duration", "renewable", "data", "auth", "warnings"} {
			if _, is := answered[name]; !is {
				c.Fatalf("there is no %s in %v", name, answered)
			}
		}
	}, nil},
}

var oaepHashes = map[string]struct {
	new func() hash.Hash
}{"SHA1": {sha1.New}, "SHA224": {sha256.New224}, "SHA256": {sha256.New}, "SHA384": {sha512.New384}, "SHA512": {sha512.New}}

func (c *try) wrappingKey() *rsa.PublicKey {
	c.Helper()
	block, _ := pem.Decode([]byte(c.text(c.get("wrapping_key", nil), "public_key")))
	if block == nil {
		c.Fatal("the wrapping key is not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		c.Fatal(err)
	}
	return key.(*rsa.PublicKey)
}

// wrapped wraps key material for import.
func (c *try) wrapped(material []byte, hash string) string {
	c.Helper()
	ephemeral := make([]byte, 32)
	_, _ = rand.Read(ephemeral)
	outer, err := rsa.EncryptOAEP(oaepHashes[hash].new(), rand.Reader, c.wrappingKey(), ephemeral, nil)
	if err != nil {
		c.Fatal(err)
	}
	kwp, err := subtle.NewKWP(ephemeral)
	if err != nil {
		c.Fatal(err)
	}
	inner, err := kwp.Wrap(material)
	if err != nil {
		c.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(append(outer, inner...))
}

// imported imports a key and returns its name.
func (c *try) imported(material []byte, more fields) string {
	c.Helper()
	name := c.fresh()
	c.put("keys/"+name+"/import", with(fields{"ciphertext": c.wrapped(material, "SHA256")}, more))
	return name
}

var own = func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}()

func ownKey() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		panic(err)
	}
	return der
}

func ownPublicKey() string {
	der, err := x509.MarshalPKIXPublicKey(crypto.PublicKey(&own.PublicKey))
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
