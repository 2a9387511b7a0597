package interop

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
)

// text is what is encrypted and signed where it does not matter what.
const text = "the quick brown fox"

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// with is fields with others over them.
func with(body, more fields) fields {
	all := maps.Clone(body)
	if all == nil {
		all = fields{}
	}
	maps.Copy(all, more)
	return all
}

var (
	run   = rand.Text()[:8] // names of this run: a peer keeps those of others
	names atomic.Int64
)

// fresh is a name that no key has.
func (c *try) fresh() string { return strings.ToLower(fmt.Sprintf("k%d-%s", names.Add(1), run)) }

// key makes a key and returns its name.
func (c *try) key(body fields) string {
	c.Helper()
	name := c.fresh()
	c.put("keys/"+name, body)
	return name
}

// typed makes a key of a type.
func (c *try) typed(name string) string {
	c.Helper()
	body := fields{"type": name}
	if name == "hmac" {
		body["key_size"] = 32 // without which OpenBao makes none
	}
	return c.key(body)
}

// versions makes a key that has as many versions.
func (c *try) versions(n int, body fields) string {
	c.Helper()
	name := c.key(body)
	for range n - 1 {
		c.put("keys/"+name+"/rotate", nil)
	}
	return name
}

// encrypt encrypts text.
func (c *try) encrypt(key string, more fields) string {
	c.Helper()
	return c.text(c.put("encrypt/"+key, with(fields{"plaintext": b64(text)}, more)), "ciphertext")
}

// decrypts wants text of a ciphertext.
func (c *try) decrypts(key, ciphertext string, more fields) {
	c.Helper()
	c.has(c.put("decrypt/"+key, with(fields{"ciphertext": ciphertext}, more)), "plaintext", b64(text))
}

// notDecrypts wants a refusal.
func (c *try) notDecrypts(key, ciphertext string, more fields) {
	c.Helper()
	c.refused(http.MethodPut, "decrypt/"+key, with(fields{"ciphertext": ciphertext}, more))
}

// signs signs text and verifies it with the same fields, after the path's end.
func (c *try) signs(key, end string, more fields) string {
	c.Helper()
	body := with(fields{"input": b64(text)}, more)
	signature := c.text(c.put("sign/"+key+end, body), "signature")
	c.valid(key+end, with(body, fields{"signature": signature}), true)
	c.valid(key+end, with(body, fields{"signature": signature, "input": b64(strings.ToUpper(text)[:len(text)])}), false)
	return signature
}

// valid wants a result of verify.
func (c *try) valid(key string, body fields, want bool) {
	c.Helper()
	c.has(c.put("verify/"+key, body), "valid", want)
}

// has wants a field of an answer; numbers and booleans are compared as texts.
func (c *try) has(data fields, name string, want any) {
	c.Helper()
	if got, is := data[name]; !is || fmt.Sprint(got) != fmt.Sprint(want) {
		c.Fatalf("%s is %v instead of %v, in %v", name, got, want, data)
	}
}

// text returns a field of an answer that is a text and not empty.
func (c *try) text(data fields, name string) string {
	c.Helper()
	text, _ := data[name].(string)
	if text == "" {
		c.Fatalf("%s is %v, in %v", name, data[name], data)
	}
	return text
}

// inside returns a field that has fields.
func (c *try) inside(data fields, name string) fields {
	c.Helper()
	inner, is := data[name].(fields)
	if !is {
		c.Fatalf("%s is %v, in %v", name, data[name], data)
	}
	return inner
}

// version wants a ciphertext, a signature or an HMAC of a version.
func (c *try) version(of string, want int) {
	c.Helper()
	if !strings.HasPrefix(of, fmt.Sprintf("vault:v%d:", want)) {
		c.Fatalf("%.40q is not of version %d", of, want)
	}
}

// size wants base64 of so many bytes.
func (c *try) size(of string, want int) {
	c.Helper()
	if raw, err := base64.StdEncoding.DecodeString(of); err != nil || len(raw) != want {
		c.Fatalf("%q has %d bytes instead of %d, %v", of, len(raw), want, err)
	}
}

// someKey is key material that is no pattern, which Keywright would refuse.
func someKey(size int) []byte {
	key := make([]byte, size)
	for i := range key {
		key[i] = byte(7*i + 1)
	}
	return key
}
