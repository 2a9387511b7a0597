// Package transittest serves what is documented of the transit engine of HashiCorp
// Vault and OpenBao, as far as the load generator calls it. Nothing is encrypted: what
// it gives out is the input itself, or its hash.
//
// A Server serves any number of calls at once.
package transittest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

const prefix = "vault:v1:"

// Server is an engine mounted at transit.
type Server struct {
	*httptest.Server
	token string

	mu   sync.Mutex
	keys []string
}

// New serves while the test runs, to callers with the token.
func New(t testing.TB, token string, keys ...string) *Server {
	s := &Server{token: token, keys: keys}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/transit/keys/{key}", s.read)
	mux.HandleFunc("POST /v1/transit/{operation}/{key}", s.operate)
	mux.HandleFunc("POST /v1/transit/datakey/plaintext/{key}", s.dataKey)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fail(w, http.StatusNotFound, "no handler for route") })
	s.Server = httptest.NewServer(s.authenticate(mux))
	t.Cleanup(s.Close)
	return s
}

// Has tells whether there is a key.
func (s *Server) Has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.keys, key)
}

func (s *Server) make(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, key)
}

func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != s.token {
			fail(w, http.StatusForbidden, "permission denied")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) read(w http.ResponseWriter, r *http.Request) {
	if !s.Has(r.PathValue("key")) {
		fail(w, http.StatusNotFound)
		return
	}
	answer(w, http.StatusOK, map[string]any{"name": r.PathValue("key")})
}

func (s *Server) dataKey(w http.ResponseWriter, r *http.Request) {
	var q struct{ Bits int }
	switch err := json.NewDecoder(r.Body).Decode(&q); {
	case err != nil || q.Bits != 128 && q.Bits != 256 && q.Bits != 512:
		fail(w, http.StatusBadRequest, "invalid bit length")
	case !s.Has(r.PathValue("key")):
		fail(w, http.StatusBadRequest, "encryption key not found")
	default:
		key := base64.StdEncoding.EncodeToString(make([]byte, q.Bits/8))
		answer(w, http.StatusOK, map[string]any{"ciphertext": prefix + key, "plaintext": key, "key_version": 1})
	}
}

func (s *Server) operate(w http.ResponseWriter, r *http.Request) {
	var q struct {
		item
		Batch []item `json:"batch_input"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	operation, key := r.PathValue("operation"), r.PathValue("key")
	if operation == "encrypt" && !s.Has(key) {
		s.make(key) // as the real one does
	}
	if !s.Has(key) {
		fail(w, http.StatusBadRequest, "encryption key not found")
		return
	}
	if q.Batch != nil {
		result, status := results(operation, q.Batch)
		answer(w, status, map[string]any{"batch_results": result})
		return
	}
	switch alone := q.answer(operation); text := alone["error"].(type) {
	case string:
		fail(w, http.StatusBadRequest, text)
	default:
		answer(w, http.StatusOK, alone)
	}
}

// item is the fields of all requests.
type item struct{ Plaintext, Ciphertext, Input, Signature, HMAC string }

// results answers items; one that fails makes it a bad request.
func results(operation string, items []item) ([]map[string]any, int) {
	answers, status := make([]map[string]any, len(items)), http.StatusOK
	for i, item := range items {
		answers[i] = item.answer(operation)
		if answers[i]["error"] != nil {
			status = http.StatusBadRequest
		}
	}
	return answers, status
}

func (i item) answer(operation string) map[string]any {
	sum := sha256.Sum256([]byte(i.Input))
	proof := prefix + base64.StdEncoding.EncodeToString(sum[:])
	plaintext, own := strings.CutPrefix(i.Ciphertext, prefix)
	switch {
	case operation == "encrypt" && i.Plaintext != "":
		return map[string]any{"ciphertext": prefix + i.Plaintext, "key_version": 1}
	case operation == "decrypt" && own:
		return map[string]any{"plaintext": plaintext}
	case operation == "sign" && i.Input != "":
		return map[string]any{"signature": proof, "key_version": 1}
	case operation == "hmac" && i.Input != "":
		return map[string]any{"hmac": proof}
	case operation == "verify":
		return map[string]any{"valid": i.Signature == proof || i.HMAC == proof}
	}
	return map[string]any{"error": "invalid input"}
}

func answer(w http.ResponseWriter, status int, data any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // a client that has gone away reads no error either
		"request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data,
		"wrap_info": nil, "warnings": nil, "auth": nil, "mount_type": "transit"})
}

func fail(w http.ResponseWriter, status int, texts ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": append([]string{}, texts...)}) // as above
}
