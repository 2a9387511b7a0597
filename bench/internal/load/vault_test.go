package load

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/bench/internal/load/transittest"
)

func transitAt(s *httptest.Server) Target {
	return Target{Addr: s.Listener.Addr().String(), Plaintext: true, Token: "right"}
}

func TestVaultCallsEveryOperation(t *testing.T) {
	target := transitAt(transittest.New(t, "right", "k").Server)
	for name := range transit() {
		for _, batch := range []int{0, 3} {
			if name == "datakey" && batch > 0 {
				continue
			}
			t.Run(fmt.Sprint(name, batch), func(t *testing.T) {
				pool, err := Vault(t.Context(), target, Work{Operation: name, Namespace: "transit", Key: "k", Payload: 32, Batch: batch}, 3)
				if err != nil {
					t.Fatal(err)
				}
				defer pool.Close()
				if r, err := Run(t.Context(), pool.Callers, Plan{Duration: 50 * time.Millisecond}); err != nil || r.Latency.Count() == 0 {
					t.Errorf("%d calls answered, %v", r.Latency.Count(), err)
				}
			})
		}
	}
}

func TestVaultTargetsThatCannotServe(t *testing.T) {
	s := transittest.New(t, "right", "k")
	work := Work{Operation: "encrypt", Namespace: "transit", Key: "k", Payload: 32}
	for name, test := range map[string]struct {
		change func(*Target, *Work)
		want   string
	}{
		"nothing there":      {func(t *Target, _ *Work) { t.Addr = "127.0.0.1:1" }, "does not serve"},
		"no token":           {func(t *Target, _ *Work) { t.Token = "" }, "refused the token: 403 Forbidden: permission denied"},
		"wrong token":        {func(t *Target, _ *Work) { t.Token = "wrong" }, "refused the token: 403 Forbidden: permission denied"},
		"missing key":        {func(_ *Target, w *Work) { w.Key = "absent" }, "404 Not Found: it has no key absent at transit"},
		"key to be escaped":  {func(_ *Target, w *Work) { w.Key = "a b\r\nc" }, "404 Not Found: it has no key"},
		"missing engine":     {func(_ *Target, w *Work) { w.Namespace = "other" }, "no handler for route"},
		"unknown operation":  {func(_ *Target, w *Work) { w.Operation = "x" }, "give one of"},
		"odd data key":       {func(_ *Target, w *Work) { w.Operation, w.Payload = "datakey", 5 }, "invalid bit length"},
		"batch of data keys": {func(_ *Target, w *Work) { w.Operation, w.Batch = "datakey", 2 }, "no batch of datakey"},
		"TLS to no TLS":      {func(t *Target, _ *Work) { t.Plaintext = false }, "does not serve"},
	} {
		t.Run(name, func(t *testing.T) {
			target, w := transitAt(s.Server), work
			test.change(&target, &w)
			pool, err := Vault(t.Context(), target, w, 1)
			if err == nil {
				defer pool.Close()
			}
			if err == nil || !strings.Contains(oneLine(err.Error()), test.want) || strings.Contains(err.Error(), "right") {
				t.Errorf("got %v; want %q", err, test.want)
			}
		})
	}
	if s.Has("absent") {
		t.Error("the load generator had a key made")
	}
}

// TestVaultAnswers is about answers once the calls have begun.
func TestVaultAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		code     int
		body     string
		overload bool
		want     string // "": it is none of the errors
	}{
		"busy":            {429, `{"errors":["request path \"transit/encrypt/k\": rate limit quota exceeded"]}`, true, "rate limit quota exceeded"},
		"sealed":          {503, `{"errors":["Vault is sealed"]}`, false, "does not serve: 503 Service Unavailable: Vault is sealed"},
		"revoked":         {403, `{"errors":["permission denied"]}`, false, "refused the token"},
		"many, in lines":  {400, `{"errors":["one\n\ttwo","three"]}`, false, "refused: 400 Bad Request: one two; three"},
		"none":            {404, `{"errors":[]}`, false, "refused: 404 Not Found"},
		"something else":  {502, "<html>\nno gateway", false, "refused: 502 Bad Gateway: <html> no gateway"},
		"not as asked":    {200, `{"data":{"batch_results":[{"ciphertext":"x"},{"ciphertext":"y"}]}}`, false, "2 of 1 items"},
		"an item failed":  {200, `{"data":{"batch_results":[{"error":"no\nluck"}]}}`, false, "item 0 of the batch was refused: no luck"},
		"an item, of 400": {400, `{"data":{"batch_results":[{"ciphertext":"x"},{"error":"no luck"}]}}`, false, "400 Bad Request: item 1 of the batch was refused: no luck"},
		"no ciphertext":   {200, `{"data":{}}`, false, "has no ciphertext"},
		"no JSON":         {200, `hello`, false, "not one of transit"},
		"other blanks":    {200, `{ "data": { "ciphertext": "vault:v1:x" } }`, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := oneAnswer(t, test.code, test.body)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || errors.Is(err, ErrOverload) != test.overload || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// oneAnswer is what is made of an answer to Encrypt.
func oneAnswer(t *testing.T, code int, body string) error {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}))
	defer s.Close()
	l, err := connect(t.Context(), transitAt(s), judgeVault)
	if err != nil {
		t.Fatal(err)
	}
	defer l.conn.Close()
	v := vault{transitAt(s), Work{Namespace: "transit", Key: "k"}, l}
	c, err := v.call(transit()["encrypt"], map[string]any{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return v.tryOut(t.Context(), c)
}

func TestVaultVerifiesWhatItAsked(t *testing.T) {
	check := transit()["verify"].check(2)
	if err := check([]byte(`{"data":{"batch_results":[{"valid":true},{"valid":true}]}}`)); err != nil {
		t.Error(err)
	}
	if err := check([]byte(`{"data":{"batch_results":[{"valid":true},{"reference":""}]}}`)); err == nil || !strings.Contains(err.Error(), "item 1 is that it is not valid") {
		t.Errorf("got %v", err)
	}
}
