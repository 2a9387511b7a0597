package interop

import (
	"net/http"
	"strings"
)

var useRows = []row{
	{"POST encrypt/:name", "plaintext", same, "base64; may be empty", func(c *try) {
		k := c.key(nil)
		made := c.put("encrypt/"+k, fields{"plaintext": b64(text)})
		c.has(made, "key_version", 1)
		c.version(c.text(made, "ciphertext"), 1)
		c.decrypts(k, c.text(made, "ciphertext"), nil)
		empty := c.text(c.put("encrypt/"+k, fields{"plaintext": ""}), "ciphertext")
		c.has(c.put("decrypt/"+k, fields{"ciphertext": empty}), "plaintext", "")
	}, nil},
	{"POST encrypt/:name", "plaintext, missing or not base64", same, "refused", func(c *try) {
		k := c.key(nil)
		c.refused(put, "encrypt/"+k, nil)
		c.refused(put, "encrypt/"+k, fields{"plaintext": "not base64!"})
	}, nil},
	{"POST encrypt/:name", "associated_data", same, "bound to the ciphertext", func(c *try) {
		k := c.key(nil)
		made := c.encrypt(k, fields{"associated_data": b64("for Ann")})
		c.decrypts(k, made, fields{"associated_data": b64("for Ann")})
		c.notDecrypts(k, made, fields{"associated_data": b64("for Bob")})
		c.notDecrypts(k, made, nil)
	}, nil},
	{"POST encrypt/:name", "associated_data, of an RSA key", same, "refused", func(c *try) {
		c.refused(put, "encrypt/"+c.typed("rsa-2048"), fields{"plaintext": b64(text), "associated_data": b64("x")})
	}, nil},
	{"POST encrypt/:name", "associated_data, of a convergent key", better, "refused: OpenBao encrypts two messages with one nonce", func(c *try) {
		k := c.key(convergent)
		c.encrypt(k, fields{"context": b64("x"), "associated_data": b64("x")})
	}, func(c *try) {
		c.refused(put, "encrypt/"+c.key(convergent), fields{"plaintext": b64(text), "context": b64("x"), "associated_data": b64("x")})
	}},
	{"POST encrypt/:name", "context", same, "of derived keys, which need it", func(c *try) {
		k := c.key(fields{"derived": true})
		made := c.encrypt(k, fields{"context": b64("tenant 1")})
		c.decrypts(k, made, fields{"context": b64("tenant 1")})
		c.notDecrypts(k, made, fields{"context": b64("tenant 2")})
		c.notDecrypts(k, made, nil)
		c.refused(put, "encrypt/"+k, fields{"plaintext": b64(text)})
		c.refused(put, "encrypt/"+k, fields{"plaintext": b64(text), "context": "not base64!"})
	}, nil},
	{"POST encrypt/:name", "context, of a convergent key", same, "the same plaintext gives the same ciphertext", func(c *try) {
		k := c.key(convergent)
		a, b := c.encrypt(k, fields{"context": b64("x")}), c.encrypt(k, fields{"context": b64("x")})
		if other := c.encrypt(k, fields{"context": b64("y")}); a != b || a == other {
			c.Fatalf("%s, %s and with another context %s", a, b, other)
		}
		c.decrypts(k, a, fields{"context": b64("x")})
	}, nil},
	{"POST encrypt/:name", "context, of a key that is not derived", better, "refused: OpenBao ignores it, and the caller takes it for bound", func(c *try) {
		c.encrypt(c.key(nil), fields{"context": b64("x")})
	}, func(c *try) {
		c.refused(put, "encrypt/"+c.key(nil), fields{"plaintext": b64(text), "context": b64("x")})
	}},
	{"POST encrypt/:name", "key_version", same, "", func(c *try) {
		k := c.versions(3, nil)
		made := c.put("encrypt/"+k, fields{"plaintext": b64(text), "key_version": 2})
		c.has(made, "key_version", 2)
		c.version(c.text(made, "ciphertext"), 2)
		c.decrypts(k, c.text(made, "ciphertext"), nil)
		c.refused(put, "encrypt/"+k, fields{"plaintext": b64(text), "key_version": 4})
		c.refused(put, "encrypt/"+k, fields{"plaintext": b64(text), "key_version": -1})
	}, nil},
	{"POST encrypt/:name", "nonce", same, "ignored: new ciphertexts never take the caller's", func(c *try) {
		k := c.key(nil)
		if a, b := c.encrypt(k, fields{"nonce": b64("123456789012")}), c.encrypt(k, fields{"nonce": b64("123456789012")}); a == b {
			c.Fatalf("%s twice", a)
		}
	}, nil},
	{"POST encrypt/:name", "batch_input", same, "answers in its order", func(c *try) {
		k := c.versions(2, nil)
		results := c.batch("encrypt/"+k, http.StatusOK, nil,
			fields{"plaintext": b64("a")}, fields{"plaintext": b64("b"), "key_version": 1}, fields{"plaintext": b64("c"), "associated_data": b64("x")})
		c.has(results[1], "key_version", 1)
		opened := c.batch("decrypt/"+k, http.StatusOK, nil, fields{"ciphertext": results[0]["ciphertext"]},
			fields{"ciphertext": results[1]["ciphertext"]}, fields{"ciphertext": results[2]["ciphertext"], "associated_data": b64("x")})
		for i, want := range []string{"a", "b", "c"} {
			c.has(opened[i], "plaintext", b64(want))
		}
	}, nil},
	{"POST encrypt/:name", "batch_input, of a derived key", same, "a context each", func(c *try) {
		k := c.key(fields{"derived": true})
		results := c.batch("encrypt/"+k, http.StatusOK, nil,
			fields{"plaintext": b64(text), "context": b64("1")}, fields{"plaintext": b64(text), "context": b64("2")})
		c.decrypts(k, c.text(results[0], "ciphertext"), fields{"context": b64("1")})
		c.decrypts(k, c.text(results[1], "ciphertext"), fields{"context": b64("2")})
	}, nil},
	{"POST encrypt/:name", "batch_input, empty", same, "refused", func(c *try) {
		c.refused(put, "encrypt/"+c.key(nil), fields{"batch_input": []any{}})
	}, nil},
	{"POST encrypt/:name", "batch_input, an item fails", same, "400, with the results of all", func(c *try) {
		results := c.batch("encrypt/"+c.key(nil), http.StatusBadRequest, nil, fields{"plaintext": b64(text)}, fields{"plaintext": "not base64!"})
		c.text(results[0], "ciphertext")
		c.text(results[1], "error")
	}, nil},
	{"POST encrypt/:name", "partial_failure_response_code", same, "only while another item succeeds", func(c *try) {
		k := c.key(nil)
		more := fields{"partial_failure_response_code": http.StatusMultiStatus}
		c.batch("encrypt/"+k, http.StatusMultiStatus, more, fields{"plaintext": b64(text)}, fields{"plaintext": "not base64!"})
		c.batch("encrypt/"+k, http.StatusBadRequest, more, fields{"plaintext": "not base64!"})
	}, nil},
	{"POST encrypt/:name", "reference", same, "given back", func(c *try) {
		results := c.batch("encrypt/"+c.key(nil), http.StatusOK, nil, fields{"plaintext": b64(text), "reference": "row 7"})
		c.has(results[0], "reference", "row 7")
	}, nil},
	{"POST encrypt/:name", "type, convergent_encryption", better, "no key is made by encrypting, unless the server's `create_on_encrypt` says so", func(c *try) {
		k := c.fresh()
		c.encrypt(k, fields{"type": "chacha20-poly1305"})
		c.has(c.get("keys/"+k, nil), "type", "chacha20-poly1305")
	}, func(c *try) {
		k := c.fresh()
		c.refused(put, "encrypt/"+k, fields{"plaintext": b64(text), "type": "chacha20-poly1305"})
		c.absent("keys/" + k)
	}},
	{"POST encrypt/:name", "with a key that signs", same, "refused", func(c *try) {
		c.refused(put, "encrypt/"+c.typed("ed25519"), fields{"plaintext": b64(text)})
		c.refused(put, "encrypt/"+c.typed("hmac"), fields{"plaintext": b64(text)})
	}, nil},

	{"POST decrypt/:name", "ciphertext", same, "", func(c *try) {
		for _, kind := range keyTypes {
			if kind.decrypts && kind.name != "rsa-4096" && kind.name != "rsa-3072" {
				k := c.typed(kind.name)
				c.decrypts(k, c.encrypt(k, nil), nil)
			}
		}
	}, nil},
	{"POST decrypt/:name", "ciphertext, changed or of another key", same, "refused", func(c *try) {
		k := c.key(nil)
		made := c.encrypt(k, nil)
		at := len("vault:v1:") + 3
		changed := made[:at] + strings.Map(func(r rune) rune {
			if r == 'A' {
				return 'B'
			}
			return 'A'
		}, made[at:at+1]) + made[at+1:]
		c.notDecrypts(k, changed, nil)
		c.notDecrypts(c.key(nil), made, nil)
		for _, bad := range []string{"", "AAAA", "vault:v1:", "vault:v0:AAAA", "vault:v2:" + made[9:], "vault:v1:!", "vault:" + made[9:], "vault:vx:" + made[9:]} {
			c.notDecrypts(k, bad, nil)
		}
	}, nil},
	{"POST decrypt/:name", "associated_data", same, "", func(c *try) {
		k := c.typed("xchacha20-poly1305")
		c.decrypts(k, c.encrypt(k, fields{"associated_data": b64("x")}), fields{"associated_data": b64("x")})
	}, nil},
	{"POST decrypt/:name", "context", same, "", func(c *try) {
		k := c.key(fields{"type": "aes128-gcm96", "derived": true})
		c.decrypts(k, c.encrypt(k, fields{"context": b64("x")}), fields{"context": b64("x")})
	}, nil},
	{"POST decrypt/:name", "nonce", same, "of convergent keys of version 1 only; else ignored", func(c *try) {
		k := c.key(nil)
		c.decrypts(k, c.encrypt(k, nil), fields{"nonce": b64("123456789012")})
	}, nil},
	{"POST decrypt/:name", "batch_input, an item fails", same, "400, with the results of all", func(c *try) {
		k := c.key(nil)
		results := c.batch("decrypt/"+k, http.StatusBadRequest, nil, fields{"ciphertext": c.encrypt(k, nil)}, fields{"ciphertext": "vault:v1:AAAA"})
		c.has(results[0], "plaintext", b64(text))
		c.text(results[1], "error")
	}, nil},
	{"POST decrypt/:name", "partial_failure_response_code", same, "", func(c *try) {
		k := c.key(nil)
		c.batch("decrypt/"+k, http.StatusMultiStatus, fields{"partial_failure_response_code": http.StatusMultiStatus},
			fields{"ciphertext": c.encrypt(k, nil)}, fields{"ciphertext": "vault:v1:AAAA"})
	}, nil},
	{"POST decrypt/:name", "reference", same, "", func(c *try) {
		k := c.key(nil)
		results := c.batch("decrypt/"+k, http.StatusOK, nil, fields{"ciphertext": c.encrypt(k, nil), "reference": "row 7"})
		c.has(results[0], "reference", "row 7")
	}, nil},
	{"POST decrypt/:name", "name, of no key", same, "refused", func(c *try) {
		c.notDecrypts(c.fresh(), "vault:v1:AAAA", nil)
	}, nil},

	{"POST rewrap/:name", "ciphertext", same, "to the latest version", func(c *try) {
		k := c.key(nil)
		was := c.encrypt(k, nil)
		c.put("keys/"+k+"/rotate", nil)
		made := c.put("rewrap/"+k, fields{"ciphertext": was})
		c.has(made, "key_version", 2)
		c.version(c.text(made, "ciphertext"), 2)
		c.decrypts(k, c.text(made, "ciphertext"), nil)
	}, nil},
	{"POST rewrap/:name", "context", same, "", func(c *try) {
		k := c.versions(2, fields{"derived": true})
		was := c.encrypt(k, fields{"context": b64("x"), "key_version": 1})
		made := c.text(c.put("rewrap/"+k, fields{"ciphertext": was, "context": b64("x")}), "ciphertext")
		c.decrypts(k, made, fields{"context": b64("x")})
		c.refused(put, "rewrap/"+k, fields{"ciphertext": was, "context": b64("y")})
	}, nil},
	{"POST rewrap/:name", "key_version", same, "", func(c *try) {
		k := c.versions(3, nil)
		made := c.text(c.put("rewrap/"+k, fields{"ciphertext": c.encrypt(k, nil), "key_version": 2}), "ciphertext")
		c.version(made, 2)
	}, nil},
	{"POST rewrap/:name", "nonce", same, "ignored, as by decrypt", func(c *try) {
		k := c.key(nil)
		c.put("rewrap/"+k, fields{"ciphertext": c.encrypt(k, nil), "nonce": b64("123456789012")})
	}, nil},
	{"POST rewrap/:name", "batch_input, reference", same, "", func(c *try) {
		k := c.versions(2, nil)
		results := c.batch("rewrap/"+k, http.StatusOK, nil, fields{"ciphertext": c.encrypt(k, fields{"key_version": 1}), "reference": "row 7"})
		c.version(c.text(results[0], "ciphertext"), 2)
		c.has(results[0], "reference", "row 7")
	}, nil},
	{"POST rewrap/:name", "batch_input, an item fails", better, "400, as of encrypt, where OpenBao answers 200", func(c *try) {
		c.rewrapSome(http.StatusOK)
	}, func(c *try) { c.rewrapSome(http.StatusBadRequest) }},

	{"POST datakey/:type/:name", "type `plaintext`", same, "", func(c *try) {
		k := c.key(nil)
		made := c.put("datakey/plaintext/"+k, nil)
		c.size(c.text(made, "plaintext"), 32)
		c.has(made, "key_version", 1)
		c.has(c.put("decrypt/"+k, fields{"ciphertext": made["ciphertext"]}), "plaintext", made["plaintext"])
	}, nil},
	{"POST datakey/:type/:name", "type `wrapped`", same, "", func(c *try) {
		k := c.key(nil)
		made := c.put("datakey/wrapped/"+k, nil)
		if _, is := made["plaintext"]; is {
			c.Fatalf("there is a plaintext: %v", made)
		}
		c.size(c.text(c.put("decrypt/"+k, fields{"ciphertext": c.text(made, "ciphertext")}), "plaintext"), 32)
	}, nil},
	{"POST datakey/:type/:name", "type, another", same, "refused", func(c *try) {
		c.refused(put, "datakey/other/"+c.key(nil), nil)
	}, nil},
	{"POST datakey/:type/:name", "bits", same, "128, 256 or 512", func(c *try) {
		k := c.key(nil)
		for _, bits := range []int{128, 256, 512} {
			c.size(c.text(c.put("datakey/plaintext/"+k, fields{"bits": bits}), "plaintext"), bits/8)
		}
		c.refused(put, "datakey/plaintext/"+k, fields{"bits": 192})
	}, nil},
	{"POST datakey/:type/:name", "context", same, "", func(c *try) {
		k := c.key(fields{"derived": true})
		made := c.put("datakey/plaintext/"+k, fields{"context": b64("x")})
		c.has(c.put("decrypt/"+k, fields{"ciphertext": made["ciphertext"], "context": b64("x")}), "plaintext", made["plaintext"])
		c.refused(put, "datakey/plaintext/"+k, nil)
	}, nil},
	{"POST datakey/:type/:name", "associated_data", same, "", func(c *try) {
		k := c.key(nil)
		made := c.put("datakey/plaintext/"+k, fields{"associated_data": b64("x")})
		c.has(c.put("decrypt/"+k, fields{"ciphertext": made["ciphertext"], "associated_data": b64("x")}), "plaintext", made["plaintext"])
		c.notDecrypts(k, c.text(made, "ciphertext"), nil)
	}, nil},
	{"POST datakey/:type/:name", "nonce", same, "ignored", func(c *try) {
		c.put("datakey/wrapped/"+c.key(nil), fields{"nonce": b64("123456789012")})
	}, nil},
}

var convergent = fields{"derived": true, "convergent_encryption": true}

// batch posts a batch and wants a status, and a result of each item.
func (c *try) batch(path string, want int, more fields, items ...fields) []fields {
	c.Helper()
	status, answered := c.raw(http.MethodPost, "transit/"+path, with(more, fields{"batch_input": items}))
	data, _ := answered["data"].(fields)
	results, _ := data["batch_results"].([]any)
	if status != want || len(results) != len(items) {
		c.Fatalf("%s %v: status %d instead of %d, %v", path, items, status, want, answered)
	}
	all := make([]fields, len(results))
	for i := range results {
		all[i], _ = results[i].(fields)
	}
	return all
}

func (c *try) rewrapSome(status int) {
	c.Helper()
	k := c.key(nil)
	results := c.batch("rewrap/"+k, status, nil, fields{"ciphertext": c.encrypt(k, nil)}, fields{"ciphertext": "vault:v1:AAAA"})
	c.text(results[0], "ciphertext")
	c.text(results[1], "error")
}
