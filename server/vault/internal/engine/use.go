package engine

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

func useRoutes() []Route {
	return []Route{
		plain("VaultEncrypt", "encrypt/:name", encrypt.handler()),
		plain("VaultDecrypt", "decrypt/:name", decrypt.handler()),
		plain("VaultRewrap", "rewrap/:name", rewrap.handler()),
		route("VaultDataKey", Put, "datakey/:plaintext/:name", (*Engine).dataKey),
		route("VaultRandom", Put, "random", (*Engine).random),
		route("VaultRandom", Put, "random/:bytes", (*Engine).random),
		route("VaultRandom", Put, "random/:source/:bytes", (*Engine).random),
		route("VaultHash", Put, "hash", (*Engine).hash),
		route("VaultHash", Put, "hash/:algorithm", (*Engine).hash),
		plain("VaultHMAC", "hmac/:name", hmac.handler()),
		plain("VaultHMAC", "hmac/:name/:algorithm", hmac.handler()),
		plain("VaultSign", "sign/:name", sign.handler()),
		plain("VaultSign", "sign/:name/:algorithm", sign.handler()),
		route("VaultVerify", Put, "verify/:name", (*Engine).verify),
		route("VaultVerify", Put, "verify/:name/:algorithm", (*Engine).verify),
	}
}

// use is a kind of operation that comes alone or in batches. O is a request of the core.
type use[O any] struct {
	// prepare reads what all items have in common; nil if there is nothing.
	prepare func(q *Query) (common O, err error)
	// read adds what an item has to a request that has the namespace and the key.
	read func(q *Query, i *wire.Item, o *O) error
	// operation makes an operation of it.
	operation func(o *O) kms.Operation
	// tell appends the fields of a response, without braces; batch tells that it is an item's.
	tell func(dst []byte, response any, batch bool) []byte
	// failed are fields that a failed item has beside its error.
	failed string
	// missing is what the original says where the key does not exist.
	missing string
	// lenient tells that the original answers 200 to a batch with failed items.
	lenient bool
	// retry may mend what failed because the key does not exist; nil: nothing can.
	retry func(e *Engine, ctx context.Context, q *Query) error
}

func (u use[O]) handler() Handler {
	return func(e *Engine, ctx context.Context, q *Query) (*wire.Answer, error) { return u.serve(ctx, e, q) }
}

func (u use[O]) serve(ctx context.Context, e *Engine, q *Query) (*wire.Answer, error) {
	if err := q.Request.Limit(); err != nil {
		return nil, err
	}
	results, err := u.results(ctx, e, q)
	if err == nil && u.retry != nil && allMissing(results) {
		if err = u.retry(e, ctx, q); err == nil {
			results, err = u.results(ctx, e, q)
		}
	}
	if err != nil {
		return nil, u.worded(err)
	}
	if !q.Request.Batch {
		return u.single(q, results[0])
	}
	return u.batch(e, q, results)
}

// results performs all items. What could not be read of an item is its own result.
func (u use[O]) results(ctx context.Context, e *Engine, q *Query) ([]kms.Result, error) {
	items := q.Request.Items
	q.Memory.reserve(items)
	var common O
	if u.prepare != nil {
		var err error
		if common, err = u.prepare(q); err != nil {
			return nil, err
		}
	}
	results, requests := make([]kms.Result, len(items)), make([]O, len(items))
	operations := make([]kms.Operation, 0, len(items))
	for i := range items {
		requests[i] = common
		err := items[i].Err
		if err == nil {
			err = u.read(q, &items[i], &requests[i])
		}
		if err != nil {
			results[i].Err = err
			continue
		}
		operations = append(operations, u.operation(&requests[i]))
	}
	done, err := e.perform(ctx, q, operations)
	for i := range results {
		if results[i].Err == nil && err == nil {
			results[i], done = done[0], done[1:]
		}
	}
	return results, err
}

// perform performs operations, a single one under its own name in the audit log.
func (e *Engine) perform(ctx context.Context, q *Query, operations []kms.Operation) ([]kms.Result, error) {
	switch {
	case len(operations) == 0:
		return nil, nil
	case q.Request.Batch:
		return e.Service.Batch(ctx, q.Call, operations)
	}
	return e.Service.Record([]kms.Performed{e.Service.Perform(ctx, q.Call, operations[0])}), nil
}

func allMissing(results []kms.Result) bool {
	return !slices.ContainsFunc(results, func(r kms.Result) bool { return reason(r.Err) != keyNotFound })
}

const (
	keyNotFound     = "KEY_NOT_FOUND"
	versionNotFound = "VERSION_NOT_FOUND"
)

func reason(err error) string {
	var e *kms.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// worded tells an error of a use as the original does: what does not exist is a mistake in
// the request, not a path that does not exist.
func (u use[O]) worded(err error) error {
	var e *kms.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Reason {
	case keyNotFound:
		return wire.Invalid("", "%s", u.missing)
	case versionNotFound:
		return wire.Invalid("", "%s", e.Message)
	}
	return err
}

func (u use[O]) single(q *Query, r kms.Result) (*wire.Answer, error) {
	if r.Err != nil {
		return nil, u.worded(r.Err)
	}
	q.Memory.Raw = append(u.tell(append(q.Memory.Raw[:0], '{'), r.Response, false), '}')
	return &wire.Answer{Raw: q.Memory.Raw}, nil
}

func (u use[O]) batch(e *Engine, q *Query, results []kms.Result) (*wire.Answer, error) {
	raw, failed := append(q.Memory.Raw[:0], `{"batch_results":[`...), 0
	for i, r := range results {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = append(raw, '{')
		if r.Err != nil {
			failed++
			_, text := wire.StatusAndText(asError(u.worded(r.Err)))
			raw = wire.AppendText(append(append(raw, u.failed...), `"error":`...), []byte(text))
		} else {
			raw = u.tell(raw, r.Response, true)
		}
		raw = append(wire.AppendText(append(raw, `,"reference":`...), q.Request.Items[i].Reference), '}')
	}
	q.Memory.Raw = append(raw, `]}`...)
	if failed == len(results) {
		if err := u.common(results); err != nil {
			return nil, err
		}
	}
	status, err := u.status(e, q, failed, len(results))
	return &wire.Answer{Status: status, Raw: q.Memory.Raw}, err
}

// common is the error of a batch that failed as a whole for no fault of its items: it is
// answered as that of a single request, so that clients ask again, or give up, as they do there.
func (u use[O]) common(results []kms.Result) error {
	first := asError(u.worded(results[0].Err))
	status, _ := wire.StatusAndText(first)
	for _, r := range results {
		if other, _ := wire.StatusAndText(asError(u.worded(r.Err))); other != status {
			return nil
		}
	}
	if status == http.StatusBadRequest && reason(results[0].Err) != keyNotFound {
		return nil
	}
	return first
}

// status of a batch: any failed item makes it 400, so that no client takes it for a
// success, unless it asked for another status where a part succeeds.
func (u use[O]) status(e *Engine, q *Query, failed, all int) (int, error) {
	if failed == 0 || u.lenient && e.LenientBatches {
		return http.StatusOK, nil
	}
	code, err := q.Request.Fields.Int("partial_failure_response_code")
	switch {
	case err != nil:
		return 0, err
	case code == 0 || failed == all:
		return http.StatusBadRequest, nil
	case code < 200 || code > 599:
		return 0, wire.Invalid("partial_failure_response_code", "must be an HTTP status")
	}
	return code, nil
}

func asError(err error) *kms.Error {
	var e *kms.Error
	if errors.As(err, &e) {
		return e
	}
	return &kms.Error{Code: kms.Internal, Reason: "INTERNAL", Message: "internal error", Cause: err}
}

// reserve makes room for all that the items' texts decode to, so that slices of it stay good.
func (m *Memory) reserve(items []wire.Item) {
	size := 0
	for i := range items {
		for _, text := range [...][]byte{items[i].Plaintext, items[i].Input, items[i].Context, items[i].Nonce, items[i].AAD} {
			size += base64.StdEncoding.DecodedLen(len(text))
		}
	}
	m.arena = slices.Grow(m.arena[:0], size)
}

// decode decodes a base64 text into memory that reserve made; a missing one is nil.
func (m *Memory) decode(field string, text []byte) ([]byte, error) {
	if text == nil {
		return nil, nil
	}
	start := len(m.arena)
	decoded, err := base64.StdEncoding.AppendDecode(m.arena, text)
	if err != nil {
		clear(m.arena[start:cap(m.arena)]) // of what was decoded before the mistake
		return nil, wire.Invalid(field, "failed to base64-decode %s", field)
	}
	m.arena = decoded
	return decoded[start:len(decoded):len(decoded)], nil
}

// params reads what a request to encrypt or decrypt has beside its data.
func (q *Query) params(i *wire.Item, p *transit.Params) (err error) {
	if p.Context, err = q.Memory.decode("context", i.Context); err != nil {
		return err
	}
	if p.Nonce, err = q.Memory.decode("nonce", i.Nonce); err != nil {
		return err
	}
	p.AAD, err = q.Memory.decode("associated_data", i.AAD)
	return err
}

// padding reads padding_scheme, which all items have in common.
func (q *Query) padding() (string, error) { return q.Request.Fields.Text("padding_scheme") }
