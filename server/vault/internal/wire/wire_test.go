package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms"
)

// What the scanner takes on, encoding/json reads to the same.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"plaintext":"eA=="}`, `{"ciphertext":"vault:v1:eA==","context":"eA==","key_version":3}`, `{"batch_input":[{"plaintext":"eA=="},{}]}`,
		`{"plaintext":"a\"b"}`, `{"plaintext":"x","plaintext":"y"}`, `{"key_version":01}`, `{"batch_input":[]}`, `{"input":"é"}`, ` { "reference" : "r" } `,
		`{"batch_input":[{"plaintext":"x"}],"batch_input":[]}`, `{"plaintext":"x"}{}`, `{"key_version":4294967296}`, `{"PLAINTEXT":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var scanned, read Request
		if !scanned.scan(body) {
			return
		}
		if err := read.Read(body, false); err != nil {
			t.Fatalf("%q: scanned, but %v", body, err)
		}
		if scanned.Batch != read.Batch || len(scanned.Items) != len(read.Items) {
			t.Fatalf("%q: %v is not %v", body, scanned, read)
		}
		for i := range scanned.Items {
			if !sameItem(scanned.Items[i], read.Items[i]) {
				t.Fatalf("%q: %+v is not %+v", body, scanned.Items[i], read.Items[i])
			}
		}
	})
}

func sameItem(a, b Item) bool {
	text := func(b []byte) any {
		if b == nil {
			return nil
		}
		return string(b)
	}
	of := func(i Item) []any {
		return []any{text(i.Plaintext), text(i.Ciphertext), text(i.Input), text(i.Context), text(i.AAD), text(i.Reference), i.Version, i.Err}
	}
	return reflect.DeepEqual(of(a), of(b))
}

func TestThePlainFormIsScanned(t *testing.T) {
	for body, want := range map[string]bool{
		`{"plaintext":"eA=="}`: true, `{"batch_input":[{"plaintext":"eA==","reference":"r"}]}`: true, `{}`: true,
		`{"plaintext":"eA==","type":"x"}`: false, `{"batch_input":[{"plaintext":"eA=="}],"partial_failure_response_code":200}`: false,
		`{"key_version":"1"}`: false, `null`: false, ``: false, `{"plaintext":null}`: false, `{"plaintext":"\u0041"}`: false,
	} {
		if got := new(Request).scan([]byte(body)); got != want {
			t.Errorf("%s: scanned: %v", body, got)
		}
	}
}

func TestFields(t *testing.T) {
	fields, err := parseFields([]byte(`{"n":7,"s":"7","f":7.0,"half":7.5,"t":true,"ts":"true","one":1,"d":"90m","days":"30d","list":["a","b"],"commas":"a,b","nothing":null,"o":{},"b":"eA=="}`))
	if err != nil {
		t.Fatal(err)
	}
	r := Reader{Fields: fields}
	for i, check := range []struct{ got, want any }{
		{Get(&r, "n", r.Int), 7}, {Get(&r, "s", r.Int), 7}, {Get(&r, "f", r.Int), 7}, {Get(&r, "missing", r.Int), 0},
		{Get(&r, "t", r.Bool), true}, {Get(&r, "ts", r.Bool), true}, {Get(&r, "one", r.Bool), true}, {Get(&r, "nothing", r.Bool), false},
		{Get(&r, "n", r.Text), "7"}, {Get(&r, "t", r.Text), "true"}, {Get(&r, "n", r.Duration), 7 * time.Second},
		{Get(&r, "d", r.Duration), 90 * time.Minute}, {Get(&r, "days", r.Duration), 30 * 24 * time.Hour},
		{len(Get(&r, "list", r.Texts)), 2}, {len(Get(&r, "commas", r.Texts)), 2}, {string(Get(&r, "b", r.Bytes)), "x"},
		{GetOptional(&r, "nothing", r.Bool) == nil, true}, {*GetOptional(&r, "n", r.Version), uint32(7)},
	} {
		if check.got != check.want {
			t.Errorf("%d: %v, want %v", i, check.got, check.want)
		}
	}
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	for name, read := range map[string]func(string) error{
		"half": func(n string) error { _, err := fields.Int(n); return err },
		"o":    func(n string) error { _, err := fields.Text(n); return err },
		"d":    func(n string) error { _, err := fields.Bool(n); return err },
		"ts":   func(n string) error { _, err := fields.Duration(n); return err },
		"s":    func(n string) error { _, err := fields.Bytes(n); return err },
	} {
		var e *kms.Error
		if err := read(name); !errors.As(err, &e) || e.Code != kms.InvalidArgument || !strings.Contains(e.Message, name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswersAreJSON(t *testing.T) {
	for _, a := range []Answer{{Data: map[string]any{"a": 1}}, {Raw: []byte(`{"b":"c"}`)}, {Auth: map[string]any{"client_token": "x"}, Warnings: []string{"w"}}, {Bare: map[string]any{"sealed": false}}} {
		text, err := a.AppendTo(nil, "id")
		var read map[string]any
		if err != nil || json.Unmarshal(text, &read) != nil {
			t.Errorf("%s, %v", text, err)
		}
	}
	if got := string(AppendErrors(nil, "a \"quoted\"\nline")); !json.Valid([]byte(got)) {
		t.Error(got)
	}
	for code, want := range map[kms.Code]int{kms.InvalidArgument: 400, kms.FailedPrecondition: 400, kms.AlreadyExists: 400, kms.NotFound: 404, kms.PermissionDenied: 403,
		kms.Unauthenticated: 403, kms.ResourceExhausted: 429, kms.Aborted: 412, kms.Unavailable: 503, kms.DeadlineExceeded: 503, kms.Internal: 500, kms.DataLoss: 500} {
		if status, text := StatusAndText(&kms.Error{Code: code, Message: "secret of the inside"}); status != want || status == 500 && strings.Contains(text, "secret") {
			t.Errorf("%s: %d %s", code, status, text)
		}
	}
}
