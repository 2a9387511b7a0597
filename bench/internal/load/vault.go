package load

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// errNotFound is wrapped by the error of an answer of 404.
var errNotFound = errors.New("refused")

// Vault returns callers of the transit engine of HashiCorp Vault, OpenBao or a server
// that speaks as they do, each with a connection of its own; the namespace of w is
// where the engine is mounted. It has sent the call once, after a look at the key:
// transit makes a key that it is to encrypt with and does not have.
func Vault(ctx context.Context, t Target, w Work, callers int) (*Pool, error) {
	return httpPool(ctx, t, callers, judgeVault, func(l *link) (httpCall, error) {
		v := vault{t, w, l}
		o, ok := transit()[w.Operation]
		switch {
		case !ok:
			return httpCall{}, fmt.Errorf("transit has no operation %q: give one of %s", w.Operation, strings.Join(slices.Sorted(maps.Keys(transit())), ", "))
		case o.alone && w.Batch > 0:
			return httpCall{}, fmt.Errorf("transit takes no batch of %s: give none", w.Operation)
		}
		if err := v.lookUp(ctx); err != nil {
			return httpCall{}, err
		}
		item, err := v.item(ctx, o, w.payload())
		if err != nil {
			return httpCall{}, err
		}
		c, err := v.call(o, item, w.Batch)
		if err != nil {
			return httpCall{}, err
		}
		return c, v.tryOut(ctx, c)
	})
}

// transitOperation is one kind of call.
type transitOperation struct {
	path  string // between the engine's and the key's name
	after string // the operation whose answer the request needs
	field string // of the answer to an item, which is a text, or "valid"
	alone bool   // there is no batch of it
	item  func(payload []byte, earlier string) map[string]any
}

// mark is what the answer to an item contains, as Go's encoder writes it.
func (o transitOperation) mark() []byte {
	if o.field == "valid" {
		return []byte(`"valid":true`)
	}
	return []byte(`"` + o.field + `":"`)
}

func transit() map[string]transitOperation {
	input := func(payload []byte, _ string) map[string]any { return map[string]any{"input": payload} }
	verify := func(field string) func([]byte, string) map[string]any {
		return func(payload []byte, earlier string) map[string]any {
			return map[string]any{"input": payload, field: earlier}
		}
	}
	return map[string]transitOperation{
		"encrypt": {path: "encrypt", field: "ciphertext", item: func(payload []byte, _ string) map[string]any {
			return map[string]any{"plaintext": payload}
		}},
		"decrypt": {path: "decrypt", after: "encrypt", field: "plaintext", item: func(_ []byte, earlier string) map[string]any {
			return map[string]any{"ciphertext": earlier}
		}},
		"datakey": {path: "datakey/plaintext", field: "ciphertext", alone: true, item: func(payload []byte, _ string) map[string]any {
			return map[string]any{"bits": 8 * len(payload)}
		}},
		"sign":       {path: "sign", field: "signature", item: input},
		"verify":     {path: "verify", after: "sign", field: "valid", item: verify("signature")},
		"mac":        {path: "hmac", field: "hmac", item: input},
		"verify-mac": {path: "verify", after: "mac", field: "valid", item: verify("hmac")},
	}
}

// vault makes the call of a Work.
type vault struct {
	Target
	Work
	link *link
}

func (v *vault) request(method, operation string, body []byte) []byte {
	return httpRequest(v.Target, method, fmt.Sprintf("/v1/%s/%s/%s", v.Namespace, operation, v.Key), "X-Vault-Token: ", body)
}

// lookUp refuses a key that is not there. A token that may not read keys is let pass:
// what it may do is told by the call itself.
func (v *vault) lookUp(ctx context.Context) error {
	switch err := v.link.send(ctx, v.request(http.MethodGet, "keys", nil)); {
	case errors.Is(err, errNotFound):
		return fmt.Errorf("%w: it has no key %s at %s: see -key and -namespace", err, v.Key, v.Namespace)
	case errors.Is(err, ErrToken):
		return nil
	default:
		return err
	}
}

// item is what one operation takes. What has to come first has been sent.
func (v *vault) item(ctx context.Context, o transitOperation, payload []byte) (map[string]any, error) {
	if o.after == "" {
		return o.item(payload, ""), nil
	}
	first := transit()[o.after]
	item, err := v.item(ctx, first, payload)
	if err != nil {
		return nil, err
	}
	c, err := v.call(first, item, 0)
	if err != nil {
		return nil, err
	}
	if err := v.tryOut(ctx, c); err != nil {
		return nil, err
	}
	results, err := readTransit(v.link.body.Bytes())
	if err != nil {
		return nil, err
	}
	earlier, _ := results[0][first.field].(string) // tryOut has seen it
	return o.item(payload, earlier), nil
}

// call is the operation alone, or as many of it as a batch has.
func (v *vault) call(o transitOperation, item map[string]any, batch int) (httpCall, error) {
	var message any = item
	if batch > 0 {
		message = map[string]any{"batch_input": slices.Repeat([]any{item}, batch)}
	}
	body, err := json.Marshal(message)
	return httpCall{v.request(http.MethodPost, o.path, body), o.check(max(batch, 1))}, err
}

func (v *vault) tryOut(ctx context.Context, c httpCall) error {
	if err := v.link.send(ctx, c.request); err != nil {
		return err
	}
	return c.check(v.link.body.Bytes())
}

// check sees to it that each of n items was answered. An answer is decoded only where
// it does not look so: to decode all of them would slow the calls down.
func (o transitOperation) check(n int) func(body []byte) error {
	mark := o.mark()
	return func(body []byte) error {
		if bytes.Count(body, mark) == n && !bytes.Contains(body, []byte(`"error":"`)) {
			return nil
		}
		results, err := readTransit(body)
		if err != nil {
			return err
		}
		if len(results) != n {
			return fmt.Errorf("%d of %d items were answered", len(results), n)
		}
		return cmp.Or(itemRefused(results), o.missing(results))
	}
}

// missing is the error of the first item whose answer is not there, or not valid.
func (o transitOperation) missing(results []map[string]any) error {
	for i, result := range results {
		text, _ := result[o.field].(string)
		switch {
		case o.field == "valid" && result["valid"] != true:
			return fmt.Errorf("the answer to item %d is that it is not valid", i)
		case o.field != "valid" && text == "":
			return fmt.Errorf("the answer to item %d has no %s", i, o.field)
		}
	}
	return nil
}

// itemRefused is the error of the first item that failed.
func itemRefused(results []map[string]any) error {
	for i, result := range results {
		if text, _ := result["error"].(string); text != "" {
			return fmt.Errorf("item %d of the batch was refused: %s", i, oneLine(text))
		}
	}
	return nil
}

// readTransit reads the answers to all items, or the one to a call without a batch.
func readTransit(body []byte) ([]map[string]any, error) {
	var batch struct {
		Data struct {
			Results []map[string]any `json:"batch_results"`
		} `json:"data"`
	}
	var alone struct {
		Data map[string]any `json:"data"`
	}
	if err := cmp.Or(json.Unmarshal(body, &batch), json.Unmarshal(body, &alone)); err != nil {
		return nil, fmt.Errorf("the answer is not one of transit: %s: %w", shown(body), err)
	}
	if len(batch.Data.Results) > 0 {
		return batch.Data.Results, nil
	}
	return []map[string]any{alone.Data}, nil
}

func judgeVault(addr string, answer *http.Response, body []byte) error {
	text := vaultText(answer.Status, body)
	switch answer.StatusCode {
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s", ErrOverload, text)
	case http.StatusServiceUnavailable: // sealed, or without a leader
		return fmt.Errorf("%s does not serve: %s", addr, text)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%s %w: %s", addr, ErrToken, text)
	case http.StatusNotFound:
		return fmt.Errorf("%s %w: %s", addr, errNotFound, text)
	}
	return fmt.Errorf("%s refused: %s", addr, text)
}

// vaultText is what a failure says of itself: {"errors": [...]}, or the item of a batch
// that failed, or whatever it is.
func vaultText(status string, body []byte) string {
	var failure struct {
		Errors []string `json:"errors"`
	}
	if err := json.Unmarshal(body, &failure); err != nil {
		return status + ": " + shown(body)
	}
	if failure.Errors != nil { // there are none in many an answer of 404
		return strings.TrimSuffix(status+": "+shown([]byte(strings.Join(failure.Errors, "; "))), ": ")
	}
	results, err := readTransit(body)
	if err = cmp.Or(err, itemRefused(results)); err != nil {
		return status + ": " + err.Error()
	}
	return status + ": " + shown(body)
}
