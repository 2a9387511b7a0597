package server_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// TestEveryRoute asks each route of the committed OpenAPI file once.
func TestEveryRoute(t *testing.T) {
	h := newHarness(t, nil)
	r := &routes{restClient: h.client(h.admin()), left: openAPIRoutes(t), values: map[string]string{"namespace": "app", "key": "card", "name": "mine"}}
	const ns, key, version = "/v1/namespaces/{namespace}", "/v1/namespaces/{namespace}/keys/{key}", "/v1/namespaces/{namespace}/keys/{key}/versions/{version}"
	r.ask("POST", "/v1/namespaces", `{"namespace":"app","labels":{"a":"b"}}`)
	r.ask("GET", "/v1/namespaces", "")
	r.ask("GET", ns, "")
	r.ask("PATCH", ns, `{"labels":{"entries":{"c":"d"}}}`)
	r.askErasure(ns)
	made := r.ask("POST", ns+"/keys", `{"key":"card"}`)
	r.values["keyId"] = made["id"].(string)
	r.ask("GET", ns+"/keys", "")
	if got := r.ask("GET", key, ""); got["primaryVersion"] != float64(1) || got["purpose"] != "ENCRYPT_DECRYPT" {
		t.Errorf("key = %v", got)
	}
	if got := r.ask("PATCH", key, `{"rotation":{"period":"86400s"}}`); got["rotation"] == nil {
		t.Errorf("updated key = %v", got)
	}
	r.ask("POST", key+":rotate", "")
	r.values["version"] = "1"
	r.ask("POST", version+":setPrimary", "{}")
	r.values["version"] = "2"
	for _, verb := range []string{"disable", "enable", "destroy", "restore"} {
		r.ask("POST", version+":"+verb, `{"idempotencyKey":"`+verb+`"}`)
	}
	if got := r.ask("GET", version, ""); got["state"] != "DISABLED" || got["primary"] != false {
		t.Errorf("version = %v", got)
	}
	r.ask("GET", key+"/versions", "")
	r.askHot()
	r.askAsymmetric()
	r.askImports()
	r.askVault()
	r.ask("DELETE", key, "")
	r.ask("POST", ns+"/deletedKeys/{keyId}:restore", "{}")
	for _, prefix := range []string{"/v1", ns} {
		r.ask("PUT", prefix+"/policies/{name}", `{"text":"permit (principal == Token::\"x\", action == Action::\"Encrypt\", resource in Namespace::\"app\");"}`)
		r.ask("GET", prefix+"/policies/{name}", "")
		r.ask("GET", prefix+"/policies", "")
		r.ask("DELETE", prefix+"/policies/{name}", "")
	}
	r.ask("PUT", "/v1/groups/{name}", `{"members":["User::\"a\""]}`)
	r.ask("GET", "/v1/groups/{name}", "")
	r.ask("GET", "/v1/groups", "")
	r.ask("DELETE", "/v1/groups/{name}", "")
	r.ask("POST", "/v1/policies:explain", `{"supposed":{"principal":"Token::\"x\"","action":"GetStatus"}}`)
	r.ask("POST", "/v1/policies:test", `{"requests":[{"principal":"Token::\"x\"","action":"GetStatus"}]}`)
	r.ask("POST", "/v1/policies:diff", `{"changes":[{"name":"new","text":"permit (principal == Token::\"x\", action == Action::\"GetStatus\", resource);"}]}`)
	r.ask("GET", "/v1/policies:permitted?action=GetStatus", "")
	r.askTokens()
	r.ask("GET", "/v1/whoami", "")
	r.ask("GET", "/v1/audit/entries", "")
	r.ask("GET", "/v1/audit/checkpoint", "")
	r.values["sequence"] = "0"
	if got := r.ask("GET", "/v1/audit/entries/{sequence}/proof", ""); got["proof"] == nil {
		t.Errorf("proof = %v", got)
	}
	r.ask("POST", "/v1/audit:rotateKey", "{}")
	r.askRoots(ns)
	r.ask("GET", "/v1/status", "")
	r.ask("GET", "/v1/algorithms", "")
	if len(r.left) > 0 {
		t.Errorf("routes not asked: %v", r.left)
	}
}

func (r *routes) askRoots(ns string) {
	if got := r.ask("POST", "/v1/roots:rotate", "{}"); got["version"] != float64(2) || got["state"] != "ROOT_ACTIVE" {
		r.t.Errorf("rotated: %v", got)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if roots := r.ok("GET", "/v1/roots", "")["roots"].([]any); roots[0].(map[string]any)["state"] == "ROOT_RETIRED" {
			break
		}
	}
	r.ask("GET", "/v1/roots", "")
	r.values["version"] = "1"
	if got := r.ask("POST", "/v1/roots/{version}:destroy", `{"delay":"172800s"}`); got["state"] != "ROOT_DESTROY_SCHEDULED" {
		r.t.Errorf("scheduled: %v", got)
	}
	r.ask("POST", "/v1/roots/{version}:restore", "{}")
	if got := r.ask("POST", ns+":migrate", `{"token":"default"}`); got["token"] != "default" {
		r.t.Errorf("moved: %v", got)
	}
}

func (r *routes) askErasure(ns string) {
	r.ask("POST", ns+":rekey", "{}")
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if rekey := r.ok("GET", "/v1/namespaces/app", "")["rekey"].(map[string]any); rekey["endTime"] != nil {
			break
		}
	}
	if got := r.ask("POST", ns+":confirmErasure", `{"generation":1}`); got["erasedGeneration"] != float64(1) {
		r.t.Errorf("erased: %v", got)
	}
	if got := r.ask("DELETE", ns, ""); got["state"] != "NAMESPACE_DELETE_SCHEDULED" {
		r.t.Errorf("deleted: %v", got)
	}
	r.ask("POST", ns+":restore", "{}")
}

type routes struct {
	*restClient
	left   map[string]bool
	values map[string]string
}

func openAPIRoutes(t *testing.T) map[string]bool {
	var file struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile("../proto/keywright.swagger.json")), &file); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for path, methods := range file.Paths {
		for method := range methods {
			all[strings.ToUpper(method)+" "+path] = true
		}
	}
	return all
}

func (r *routes) ask(method, template, body string) map[string]any {
	r.t.Helper()
	route, _, _ := strings.Cut(method+" "+template, "?")
	if !r.left[route] && method != "GET" {
		r.t.Logf("%s is asked again, or not in the OpenAPI file", route)
	}
	delete(r.left, route)
	path := template
	for name, value := range r.values {
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	return r.ok(method, path, body)
}

func (r *routes) askHot() {
	r.t.Helper()
	const ns, key = "/v1/namespaces/{namespace}", "/v1/namespaces/{namespace}/keys/{key}"
	text := b64([]byte("hello"))
	sealed := r.ask("POST", key+":encrypt", `{"plaintext":"`+text+`"}`)["ciphertext"].(string)
	for _, path := range []string{key + ":decrypt", ns + ":decrypt"} {
		if got := r.ask("POST", path, `{"ciphertext":"`+sealed+`"}`); got["plaintext"] != text || got["version"] != float64(1) {
			r.t.Errorf("%s = %v", path, got)
		}
	}
	r.ask("POST", key+":reEncrypt", `{"ciphertext":"`+sealed+`"}`)
	r.ask("POST", ns+":reEncrypt", `{"ciphertext":"`+sealed+`","destinationEncryptionContext":{"a":"b"}}`)
	r.ask("POST", key+":generateDataKey", `{"numBytes":16}`)
	r.ask("POST", key+":generateDataKeyPair", `{"algorithm":"ED25519"}`)
	r.ask("POST", ns+":generateRandom", `{"numBytes":4}`)
	for _, path := range []string{key + ":batch", ns + ":batch"} {
		got := r.ask("POST", path, `{"operations":[{"decrypt":{"key":"card","ciphertext":"`+sealed+`"}},{}]}`)
		if results := got["results"].([]any); len(results) != 2 || !strings.Contains(fmt.Sprint(results[0]), text) || !strings.Contains(fmt.Sprint(results[1]), "INVALID_ARGUMENT") {
			r.t.Errorf("%s = %v", path, got)
		}
	}
}

func (r *routes) askTokens() {
	r.t.Helper()
	made := r.ask("POST", "/v1/tokens", `{"principal":"app","ttl":"600s","renewableFor":"6000s","actions":["encrypter"],"resources":["app"]}`)
	administrator := r.token
	r.token = made["token"].(string)
	if got := r.ask("POST", "/v1/tokens:renew", `{"ttl":"900s"}`); got["renewableUntil"] != made["renewableUntil"] || got["expireTime"] == made["expireTime"] {
		r.t.Errorf("made %v, renewed %v", made, got)
	}
	r.token = administrator
	r.ask("POST", "/v1/tokens:revoke", `{"id":"`+made["id"].(string)+`"}`)
	if got := r.ask("GET", "/v1/revocations", ""); !strings.Contains(fmt.Sprint(got), made["id"].(string)) {
		r.t.Errorf("revocations %v", got)
	}
}

func (r *routes) askAsymmetric() {
	r.t.Helper()
	const ns, key = "/v1/namespaces/{namespace}", "/v1/namespaces/{namespace}/keys/{key}"
	for name, algorithm := range map[string]string{"sign": "ED25519", "mac": "HMAC_SHA256", "rsa": "RSA_OAEP_2048_SHA256", "ecdh": "X25519"} {
		r.ask("POST", ns+"/keys", `{"key":"`+name+`","algorithm":"`+algorithm+`"}`)
	}
	defer func() { r.values["key"], r.values["version"] = "card", "1" }()
	r.values["version"] = "1"
	r.values["key"] = "sign"
	signature := r.ask("POST", key+":sign", `{"message":"AAEC"}`)["signature"].(string)
	for message, valid := range map[string]bool{"AAEC": true, "AAAA": false} {
		if got := r.ask("POST", key+":verify", `{"message":"`+message+`","signature":"`+signature+`"}`); got["valid"] != valid {
			r.t.Errorf("verify = %v, want %v", got, valid)
		}
	}
	r.ask("GET", key+"/publicKey", "")
	r.ask("GET", key+"/versions/{version}/publicKey", "")
	r.values["key"] = "mac"
	mac := r.ask("POST", key+":generateMac", `{"message":"AAEC"}`)["mac"].(string)
	r.ask("POST", key+":verifyMac", `{"message":"AAEC","mac":"`+mac+`"}`)
	r.values["key"] = "rsa"
	block, _ := pem.Decode([]byte(r.ask("GET", key+"/publicKey", "")["pem"].(string)))
	public := must[any](r.t)(x509.ParsePKIXPublicKey(block.Bytes)).(*rsa.PublicKey)
	sealed := must[[]byte](r.t)(rsa.EncryptOAEP(sha256.New(), rand.Reader, public, []byte("hello"), nil))
	r.ask("POST", key+":asymmetricDecrypt", `{"ciphertext":"`+b64(sealed)+`"}`)
	r.values["key"] = "ecdh"
	r.ask("POST", key+":deriveSharedSecret", `{"peerPublicKey":"`+b64(append([]byte{9}, make([]byte, 31)...))+`"}`)
}

// TestHotMethodsMeanTheSame sends the same requests by the short way and, with a
// header that the short way leaves alone, through the gateway.
func TestHotMethodsMeanTheSame(t *testing.T) {
	h := newHarness(t, nil)
	c := h.prepare()
	for key, algorithm := range map[string]string{"sign": "ED25519", "mac": "HMAC_SHA256", "siv": "AES_256_SIV"} {
		must[*pb.Key](t)(pb.NewKeysClient(c).CreateKey(t.Context(), &pb.CreateKeyRequest{Namespace: "app", Key: key, Algorithm: algorithm}))
	}
	r := h.client(h.admin())
	sealed := r.ok("POST", "/v1/namespaces/app/keys/siv:encrypt", `{"plaintext":"AAEC"}`)["ciphertext"].(string)
	signature := r.ok("POST", "/v1/namespaces/app/keys/sign:sign", `{"message":"AAEC"}`)["signature"].(string)
	mac := r.ok("POST", "/v1/namespaces/app/keys/mac:generateMac", `{"message":"AAEC"}`)["mac"].(string)
	for _, q := range []struct{ path, body string }{
		{"keys/siv:encrypt", `{"plaintext":"AAEC"}`},
		{"keys/siv:encrypt", `{"plaintext":""}`},
		{"keys/siv:encrypt", `{}`},
		{"keys/siv:encrypt", `{"plaintext":"AAEC","aad":"AA=="}`},
		{"keys/nokey:encrypt", `{"plaintext":"AAEC"}`},
		{"keys/..:encrypt", `{"plaintext":"AAEC"}`},
		{"keys/a%20b:encrypt", `{"plaintext":"AAEC"}`},
		{"keys/sign:encrypt", `{"plaintext":"AAEC"}`},
		{"keys/siv:decrypt", `{"ciphertext":"` + sealed + `"}`},
		{"keys/siv:decrypt", `{"ciphertext":"` + sealed + `","aad":"AA=="}`},
		{"keys/card:decrypt", `{"ciphertext":"` + sealed + `"}`},
		{"keys/siv:decrypt", `{"ciphertext":"AAAA"}`},
		{"keys/siv:generateDataKey", `{"numBytes":2000}`},
		{"keys/sign:sign", `{"message":"AAEC"}`},
		{"keys/sign:sign", `{"message":"AAEC","format":"JWS"}`},
		{"keys/sign:sign", `{"digest":"AAEC"}`},
		{"keys/sign:verify", `{"message":"AAEC","signature":"` + signature + `"}`},
		{"keys/sign:verify", `{"message":"AAAA","signature":"` + signature + `","version":1}`},
		{"keys/mac:generateMac", `{"message":"AAEC"}`},
		{"keys/mac:verifyMac", `{"message":"AAEC","mac":"` + mac + `"}`},
		{"keys/mac:verifyMac", `{"message":"AAEC","mac":"AAAA"}`},
		{"keys/mac:verifyMac", `{"message":"AAEC","mac":"AAAA","version":9}`},
	} {
		short := r.do("POST", "/v1/namespaces/app/"+q.path, q.body, "X-Request-Id", "same")
		long := r.do("POST", "/v1/namespaces/app/"+q.path, q.body, "X-Request-Id", "same", "Grpc-Timeout", "20S")
		if short.status != long.status || !maps.Equal(short.fields, long.fields) {
			t.Errorf("%s %s:\nby hand     %d %s\nby gateway  %d %s", q.path, q.body, short.status, short.text, long.status, long.text)
		}
		if short.header.Get("Content-Type") != long.header.Get("Content-Type") || short.header.Get("X-Request-Id") != "same" {
			t.Errorf("%s: headers %v and %v", q.path, short.header, long.header)
		}
	}
}

func TestRESTQueries(t *testing.T) {
	h := newHarness(t, nil)
	h.prepare()
	r := h.client(h.admin())
	r.ok("POST", "/v1/namespaces/app/keys", `{"key":"labelled","labels":{"team":"pay"}}`)
	if got := r.ok("GET", "/v1/namespaces/app/keys?labels[team]=pay&pageSize=10", ""); len(got["keys"].([]any)) != 1 {
		t.Errorf("by label: %v", got)
	}
	page := r.ok("GET", "/v1/namespaces/app/keys?page_size=1", "")
	if len(page["keys"].([]any)) != 1 || page["nextPageToken"] == "" {
		t.Errorf("first page: %v", page)
	}
	if got := r.ok("GET", "/v1/audit/entries?filter.action=CreateKey&filter.outcome=OK", ""); len(got["entries"].([]any)) == 0 {
		t.Errorf("entries: %v", got)
	}
	if got := r.ok("DELETE", "/v1/namespaces/app/keys/labelled?delay=90000s&idempotencyKey=x", ""); got["state"] != "DELETE_SCHEDULED" {
		t.Errorf("deleted: %v", got)
	}
}

// TestHTTP1 serves clients that speak no HTTP/2, and keeps their bodies apart.
func TestHTTP1(t *testing.T) {
	h := newHarness(t, nil)
	h.prepare()
	r := h.client(h.admin())
	r.http.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	for i := range 20 {
		text := b64(bytes.Repeat([]byte{byte(i)}, 1+i*500))
		sealed := r.ok("POST", "/v1/namespaces/app/keys/card:encrypt", `{"plaintext":"`+text+`"}`)["ciphertext"].(string)
		if got := r.ok("POST", "/v1/namespaces/app/keys/card:decrypt", `{"ciphertext":"`+sealed+`"}`); got["plaintext"] != text {
			t.Fatalf("round trip %d failed", i)
		}
	}
}
