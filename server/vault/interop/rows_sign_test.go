package interop

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// hashes are those that sign and hmac take.
var hashes = []string{"sha1", "sha2-224", "sha2-256", "sha2-384", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512"}

// hashRows tries to sign and to HMAC with each hash.
func hashRows() (rows []row) {
	for _, hash := range hashes {
		rows = append(rows, row{"POST sign/:name(/:hash_algorithm)", "hash_algorithm `" + hash + "`", same, "in the path or the body", func(c *try) {
			k := c.typed("ecdsa-p256")
			c.signs(k, "/"+hash, nil)
			c.signs(k, "", fields{"hash_algorithm": hash})
			c.signs(c.typed("rsa-2048"), "/"+hash, nil)
		}, nil})
	}
	for _, hash := range hashes {
		rows = append(rows, row{"POST hmac/:name(/:algorithm)", "algorithm `" + hash + "`", same, "in the path or the body", func(c *try) {
			k := c.typed("hmac")
			a := c.text(c.put("hmac/"+k+"/"+hash, fields{"input": b64(text)}), "hmac")
			c.has(c.put("hmac/"+k, fields{"input": b64(text), "algorithm": hash}), "hmac", a)
			c.valid(k+"/"+hash, fields{"input": b64(text), "hmac": a}, true)
			c.valid(k+"/"+hash, fields{"input": b64("x"), "hmac": a}, false)
		}, nil})
	}
	return rows
}

// digest is the SHA-256 of text.
func digest() string { sum := sha256.Sum256([]byte(text)); return string(sum[:]) }

var signRows = append(hashRows(), []row{
	{"POST sign/:name(/:hash_algorithm)", "input, with each type of key", same, "", func(c *try) {
		for _, kind := range keyTypes {
			if kind.signs {
				c.version(c.signs(c.typed(kind.name), "", nil), 1)
			}
		}
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "hash_algorithm, unknown", same, "refused", func(c *try) {
		c.refused(put, "sign/"+c.typed("ecdsa-p256")+"/md5", fields{"input": b64(text)})
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "hash_algorithm `none`", same, "RSA with pkcs1v15 and prehashed only", func(c *try) {
		k := c.typed("rsa-2048")
		c.signs(k, "/none", fields{"prehashed": true, "signature_algorithm": "pkcs1v15"})
		c.refused(put, "sign/"+k+"/none", fields{"input": b64(text), "signature_algorithm": "pkcs1v15"})
		c.refused(put, "sign/"+k+"/none", fields{"input": b64(text), "prehashed": true})
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "key_version", same, "", func(c *try) {
		k := c.versions(3, fields{"type": "ed25519"})
		made := c.put("sign/"+k, fields{"input": b64(text), "key_version": 2})
		c.has(made, "key_version", 2)
		c.version(c.text(made, "signature"), 2)
		c.valid(k, fields{"input": b64(text), "signature": made["signature"]}, true)
		c.refused(put, "sign/"+k, fields{"input": b64(text), "key_version": 4})
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "prehashed", same, "", func(c *try) {
		for _, kind := range []string{"ecdsa-p256", "rsa-2048"} {
			k := c.typed(kind)
			signature := c.text(c.put("sign/"+k, fields{"input": b64(digest()), "prehashed": true}), "signature")
			c.valid(k, fields{"input": b64(text), "signature": signature}, true)
			c.valid(k, fields{"input": b64(digest()), "prehashed": true, "signature": signature}, true)
		}
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "signature_algorithm", same, "pss (default) or pkcs1v15", func(c *try) {
		k := c.typed("rsa-2048")
		signature := c.signs(k, "", fields{"signature_algorithm": "pkcs1v15"})
		c.valid(k, fields{"input": b64(text), "signature": signature}, false)
		c.signs(k, "", fields{"signature_algorithm": "pss"})
		c.refused(put, "sign/"+k, fields{"input": b64(text), "signature_algorithm": "raw"})
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "marshaling_algorithm", same, "asn1 (default) or jws", func(c *try) {
		k := c.typed("ecdsa-p256")
		signature := c.signs(k, "", fields{"marshaling_algorithm": "jws"})
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(signature, "vault:v1:"))
		if err != nil || len(raw) != 64 {
			c.Fatalf("%s: %d bytes, %v", signature, len(raw), err)
		}
		c.refused(put, "sign/"+k, fields{"input": b64(text), "marshaling_algorithm": "xml"})
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "salt_length", same, "auto (default), hash or a number of bytes", func(c *try) {
		k := c.typed("rsa-2048")
		for _, salt := range []string{"auto", "hash", "20"} {
			signature := c.text(c.put("sign/"+k, fields{"input": b64(text), "salt_length": salt}), "signature")
			c.valid(k, fields{"input": b64(text), "signature": signature, "salt_length": salt}, true)
			c.valid(k, fields{"input": b64(text), "signature": signature}, true)
		}
		c.refused(put, "sign/"+k, fields{"input": b64(text), "salt_length": "much"})
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "context", same, "of derived ed25519 keys; answers with the public_key", func(c *try) {
		k := c.key(fields{"type": "ed25519", "derived": true})
		made := c.put("sign/"+k, fields{"input": b64(text), "context": b64("x")})
		c.size(c.text(made, "public_key"), 32)
		c.valid(k, fields{"input": b64(text), "context": b64("x"), "signature": made["signature"]}, true)
		c.valid(k, fields{"input": b64(text), "context": b64("y"), "signature": made["signature"]}, false)
		c.refused(put, "sign/"+k, fields{"input": b64(text)})
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "batch_input, reference", same, "", func(c *try) {
		k := c.typed("ecdsa-p256")
		results := c.batch("sign/"+k, http.StatusOK, nil, fields{"input": b64("a"), "reference": "1"}, fields{"input": b64("b"), "reference": "2"})
		for i, input := range []string{"a", "b"} {
			c.has(results[i], "reference", fmt.Sprint(i+1))
			c.valid(k, fields{"input": b64(input), "signature": results[i]["signature"]}, true)
		}
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "batch_input, an item fails", better, "400, as of encrypt, where OpenBao answers 200", func(c *try) {
		c.someFails("sign", "ecdsa-p256", "signature", http.StatusOK)
	}, func(c *try) { c.someFails("sign", "ecdsa-p256", "signature", http.StatusBadRequest) }},
	{"POST sign/:name(/:hash_algorithm)", "input, not base64", same, "refused", func(c *try) {
		c.refused(put, "sign/"+c.typed("ecdsa-p256"), fields{"input": "not base64!"})
	}, nil},
	{"POST sign/:name(/:hash_algorithm)", "with a key that encrypts", same, "refused", func(c *try) {
		c.refused(put, "sign/"+c.key(nil), fields{"input": b64(text)})
	}, nil},

	{"POST verify/:name(/:hash_algorithm)", "signature", same, "of any version; a changed one is not valid", func(c *try) {
		k := c.typed("ecdsa-p384")
		signature := c.signs(k, "", nil)
		c.put("keys/"+k+"/rotate", nil)
		c.valid(k, fields{"input": b64(text), "signature": signature}, true)
		c.valid(k, fields{"input": b64("x"), "signature": signature}, false)
	}, nil},
	{"POST verify/:name(/:hash_algorithm)", "signature, without its prefix or of no version", same, "refused", func(c *try) {
		k := c.typed("ed25519")
		c.refused(put, "verify/"+k, fields{"input": b64(text), "signature": "AAAA"})
		c.refused(put, "verify/"+k, fields{"input": b64(text), "signature": "vault:v2:AAAA"})
	}, nil},
	{"POST verify/:name(/:hash_algorithm)", "hmac", same, "of any type of key", func(c *try) {
		for _, kind := range []string{"aes256-gcm96", "ecdsa-p256", "hmac"} {
			k := c.typed(kind)
			made := c.text(c.put("hmac/"+k, fields{"input": b64(text)}), "hmac")
			c.valid(k, fields{"input": b64(text), "hmac": made}, true)
			c.valid(k, fields{"input": b64("x"), "hmac": made}, false)
		}
	}, nil},
	{"POST verify/:name(/:hash_algorithm)", "signature and hmac, both or none", same, "refused", func(c *try) {
		k := c.typed("ecdsa-p256")
		c.refused(put, "verify/"+k, fields{"input": b64(text)})
		c.refused(put, "verify/"+k, fields{"input": b64(text), "signature": "vault:v1:AAAA", "hmac": "vault:v1:AAAA"})
	}, nil},
	{"POST verify/:name(/:hash_algorithm)", "batch_input, reference", same, "", func(c *try) {
		k := c.typed("ed25519")
		signature := c.text(c.put("sign/"+k, fields{"input": b64("a")}), "signature")
		results := c.batch("verify/"+k, http.StatusOK, nil, fields{"input": b64("a"), "signature": signature, "reference": "1"}, fields{"input": b64("b"), "signature": signature})
		c.has(results[0], "valid", true)
		c.has(results[0], "reference", "1")
		c.has(results[1], "valid", false)
	}, nil},
	{"POST verify/:name(/:hash_algorithm)", "batch_input, signature and hmac mixed", same, "refused", func(c *try) {
		k := c.typed("ecdsa-p256")
		c.refused(put, "verify/"+k, fields{"batch_input": []fields{{"input": b64("a"), "signature": "vault:v1:AAAA"}, {"input": b64("a"), "hmac": "vault:v1:AAAA"}}})
	}, nil},
	{"POST verify/:name(/:hash_algorithm)", "prehashed, context, signature_algorithm, marshaling_algorithm, salt_length", same, "as of sign, where they are tried too", func(c *try) {
		c.signs(c.typed("rsa-2048"), "/sha2-512", fields{"signature_algorithm": "pss", "salt_length": "hash"})
	}, nil},

	{"POST hmac/:name(/:algorithm)", "input", same, "with the HMAC key that each version of any key has", func(c *try) {
		k := c.key(nil)
		made := c.text(c.put("hmac/"+k, fields{"input": b64(text)}), "hmac")
		c.version(made, 1)
		c.size(strings.TrimPrefix(made, "vault:v1:"), 32)
		c.refused(put, "hmac/"+k, fields{"input": "not base64!"})
	}, nil},
	{"POST hmac/:name(/:algorithm)", "algorithm, unknown", same, "refused", func(c *try) {
		c.refused(put, "hmac/"+c.typed("hmac")+"/md5", fields{"input": b64(text)})
	}, nil},
	{"POST hmac/:name(/:algorithm)", "key_version", same, "", func(c *try) {
		k := c.versions(2, fields{"type": "hmac", "key_size": 32})
		made := c.text(c.put("hmac/"+k, fields{"input": b64(text), "key_version": 1}), "hmac")
		c.version(made, 1)
		c.valid(k, fields{"input": b64(text), "hmac": made}, true)
	}, nil},
	{"POST hmac/:name(/:algorithm)", "batch_input, reference", same, "", func(c *try) {
		k := c.typed("hmac")
		results := c.batch("hmac/"+k, http.StatusOK, nil, fields{"input": b64("a"), "reference": "1"}, fields{"input": b64("b")})
		c.has(results[0], "reference", "1")
		c.valid(k, fields{"input": b64("b"), "hmac": results[1]["hmac"]}, true)
	}, nil},
	{"POST hmac/:name(/:algorithm)", "batch_input, an item fails", better, "400, as of encrypt, where OpenBao answers 200", func(c *try) {
		c.someFails("hmac", "hmac", "hmac", http.StatusOK)
	}, func(c *try) { c.someFails("hmac", "hmac", "hmac", http.StatusBadRequest) }},
}...)

// someFails wants a status of a batch of which an item fails.
func (c *try) someFails(operation, kind, result string, status int) {
	c.Helper()
	results := c.batch(operation+"/"+c.typed(kind), status, nil, fields{"input": b64("a")}, fields{"input": "not base64!"})
	c.text(results[0], result)
	c.text(results[1], "error")
}
