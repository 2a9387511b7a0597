package load

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// transit is an operation of a Vault-compatible transit server, as its documentation has
// it: what of the path stands before the key, the fields of the request, made of the
// payload and of what an earlier operation answered, and where the answer is.
type transit struct {
	path    string
	after   string // the operation whose answer the request needs
	request func(payload []byte, earlier string) map[string]any
	answer  string
}

func transits() map[string]transit {
	input := func(payload []byte, _ string) map[string]any { return map[string]any{"input": payload} }
	verify := func(field string) func([]byte, string) map[string]any {
		return func(payload []byte, earlier string) map[string]any {
			return map[string]any{"input": payload, field: earlier}
		}
	}
	return map[string]transit{
		"encrypt": {"encrypt", "", func(payload []byte, _ string) map[string]any { return map[string]any{"plaintext": payload} }, "ciphertext"},
		"decrypt": {"decrypt", "encrypt", func(_ []byte, earlier string) map[string]any { return map[string]any{"ciphertext": earlier} }, "plaintext"},
		"datakey": {"datakey/plaintext", "", func(payload []byte, _ string) map[string]any { return map[string]any{"bits": 8 * len(payload)} }, "ciphertext"},
		"sign":    {"sign", "", input, "signature"}, "verify": {"verify", "sign", verify("signature"), "valid"},
		"mac": {"hmac", "", input, "hmac"}, "verify-mac": {"verify", "mac", verify("hmac"), "valid"},
	}
}

// Vault is REST for a Vault-compatible transit server: w.Namespace names its mount.
func Vault(ctx context.Context, t Target, w Work, callers int) (*Pool, error) {
	payload := make([]byte, w.Payload)
	_, _ = rand.Read(payload) // never fails
	return overHTTP(ctx, t, callers, func(l *link) ([]byte, func([]byte) error, error) {
		v := vault{l, t, w}
		request, err := v.alone(ctx, w.Operation, payload)
		if err != nil || w.Batch == 0 {
			return request, vaultAnswer(transits()[w.Operation]), err
		}
		if request, err = v.batch(request, w.Batch); err == nil {
			err = errors.Join(l.send(ctx, request), vaultItems(l.body.Bytes()))
		}
		return request, vaultItems, err
	})
}

// vault prepares the call of a Vault-compatible server.
type vault struct {
	*link
	target Target
	work   Work
}

// alone makes the request of one operation, and sends it once.
func (v vault) alone(ctx context.Context, name string, payload []byte) ([]byte, error) {
	o, ok := transits()[name]
	if !ok {
		return nil, fmt.Errorf("there is no operation %q: give one of %s", name, strings.Join(slices.Sorted(maps.Keys(transits())), ", "))
	}
	var earlier struct{ Data map[string]any }
	if o.after != "" {
		if _, err := v.alone(ctx, o.after, payload); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(v.body.Bytes(), &earlier); err != nil {
			return nil, err
		}
	}
	text, _ := earlier.Data[transits()[o.after].answer].(string)
	request, err := v.request(o, o.request(payload, text))
	if err == nil {
		err = v.send(ctx, request)
	}
	if err != nil {
		return nil, err
	}
	return request, vaultAnswer(o)(v.body.Bytes())
}

func (v vault) request(o transit, fields map[string]any) ([]byte, error) {
	body, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	return httpRequest(v.target, fmt.Sprintf("/v1/%s/%s/%s", v.work.Namespace, o.path, v.work.Key), "X-Vault-Token: ", body), nil
}

// batch makes of a request one with n times the same item.
func (v vault) batch(request []byte, n int) ([]byte, error) {
	if n < 0 || n > MaxBatch {
		return nil, fmt.Errorf("a batch of %d operations: give 1 to %d", n, MaxBatch)
	}
	_, body, _ := strings.Cut(string(request), "\r\n\r\n")
	return v.request(transits()[v.work.Operation], map[string]any{"batch_input": slices.Repeat([]json.RawMessage{json.RawMessage(body)}, n)})
}

// vaultAnswer finds an answer of status 200 that is none.
func vaultAnswer(o transit) func([]byte) error {
	want, invalid := fmt.Appendf(nil, `"%s":`, o.answer), []byte(`"valid":false`)
	return func(body []byte) error {
		if !bytes.Contains(body, want) {
			return fmt.Errorf("the answer has no %q", o.answer)
		}
		if o.answer == "valid" && bytes.Contains(body, invalid) {
			return errors.New("what the server itself had signed is not valid to it")
		}
		return nil
	}
}

// vaultItems is the error of the first item of a batch that failed; a status of 200 does
// not tell.
func vaultItems(body []byte) error {
	if !bytes.Contains(body, []byte(`"error":`)) && bytes.Contains(body, []byte(`"batch_results":`)) {
		return nil
	}
	var answer struct {
		Data struct {
			Results []struct{ Error string } `json:"batch_results"`
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the answer of a batch: %w", err)
	}
	for i, item := range answer.Data.Results {
		if item.Error != "" {
			return fmt.Errorf("operation %d of the batch: %s", i, oneLine(item.Error))
		}
	}
	if len(answer.Data.Results) == 0 {
		return errors.New("the answer has no \"batch_results\"")
	}
	return nil
}
