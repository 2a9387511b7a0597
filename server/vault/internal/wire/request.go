package wire

import (
	"bytes"
	"encoding/json"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/flatjson"
)

// Item is one operation of a request: of its batch_input, or its own. Texts are as they
// were sent, nil if they were not.
type Item struct {
	Plaintext, Ciphertext, Input, Signature, HMAC []byte
	Context, Nonce, AAD                           []byte // base64
	Reference                                     []byte
	Version                                       uint32
	Err                                           error // what could not be read of it
}

// Request is a request of the transit engine.
type Request struct {
	Items []Item // one, if it is no Batch
	Batch bool
	// Fields are all fields; empty where there are none but those of Items.
	Fields Fields

	scanner flatjson.Scanner
}

// Wipe forgets the request, for the next one.
func (q *Request) Wipe() {
	clear(q.Items)
	q.Items, q.Fields = q.Items[:0], nil
	q.scanner.Wipe()
}

// Read reads a request's body. With plain, what has the plain form, which programs send, is
// scanned without decoding it into a tree; anything else is left to encoding/json.
func (q *Request) Read(body []byte, plain bool) error {
	q.Items, q.Batch, q.Fields = q.Items[:0], false, nil
	if plain && q.scan(body) {
		return nil
	}
	q.Items, q.Batch = q.Items[:0], false
	fields, err := parseFields(body)
	if err != nil {
		return err
	}
	return q.take(fields)
}

// itemFields are those of an Item that the plain form has.
var itemFields = []flatjson.Field[Item]{
	flatjson.Text("plaintext", func(i *Item) *[]byte { return &i.Plaintext }),
	flatjson.Text("ciphertext", func(i *Item) *[]byte { return &i.Ciphertext }),
	flatjson.Text("input", func(i *Item) *[]byte { return &i.Input }),
	flatjson.Text("context", func(i *Item) *[]byte { return &i.Context }),
	flatjson.Text("associated_data", func(i *Item) *[]byte { return &i.AAD }),
	flatjson.Text("reference", func(i *Item) *[]byte { return &i.Reference }),
	flatjson.Uint32("key_version", func(i *Item) *uint32 { return &i.Version }),
}

// batchInput is the field of a batch.
const batchInput = "batch_input"

// scan reads a body of the plain form: the fields of an Item, or a batch of such alone.
func (q *Request) scan(body []byte) bool {
	if bytes.HasPrefix(body, []byte(`{"`+batchInput+`"`)) {
		q.Batch = true
		var ok bool
		q.Items, ok = flatjson.ScanList(&q.scanner, batchInput, itemFields, body, q.Items)
		return ok
	}
	q.Items = append(q.Items, Item{})
	return flatjson.Scan(&q.scanner, itemFields, body, &q.Items[0])
}

func (q *Request) take(fields Fields) error {
	q.Fields = fields
	list, given := fields[batchInput]
	if !given || list == nil {
		q.Items = append(q.Items, itemOf(fields))
		return q.Items[0].Err
	}
	q.Batch = true
	items, ok := list.([]any)
	if text, isText := list.(string); isText { // as a command line sends it
		ok = json.Unmarshal([]byte(text), &items) == nil
	}
	if !ok {
		return Invalid(batchInput, "must be a list of objects")
	}
	for _, entry := range items {
		f, ok := entry.(map[string]any)
		if !ok {
			return Invalid(batchInput, "must be a list of objects")
		}
		q.Items = append(q.Items, itemOf(f))
	}
	return nil
}

// Limit refuses a batch that is empty or has more than kms.MaxBatch items.
func (q *Request) Limit() error {
	if q.Batch && len(q.Items) == 0 {
		return Invalid(batchInput, "missing batch input to process")
	}
	if len(q.Items) > kms.MaxBatch {
		return Invalid(batchInput, "has %d items, the limit is %d; send several requests", len(q.Items), kms.MaxBatch)
	}
	return nil
}

func itemOf(f Fields) (i Item) {
	r := Reader{Fields: f}
	for name, at := range map[string]*[]byte{"plaintext": &i.Plaintext, "ciphertext": &i.Ciphertext, "input": &i.Input, "signature": &i.Signature,
		"hmac": &i.HMAC, "context": &i.Context, "nonce": &i.Nonce, "associated_data": &i.AAD, "reference": &i.Reference} {
		if text := GetOptional(&r, name, r.Text); text != nil {
			*at = append([]byte{}, *text...)
		}
	}
	i.Version = Get(&r, "key_version", r.Version)
	i.Err = r.Err
	return i
}
