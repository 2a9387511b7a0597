package rest

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// FuzzReadJSON asserts that what protojson refuses is refused with an error that
// can be shown, and that nothing else is.
func FuzzReadJSON(f *testing.F) {
	for _, seed := range []string{
		`{"key":"k","labels":{"a":"b"},"rotation":{"period":"3600s","maxUses":"7"}}`, `{"rotation":{"period":7}}`, `{"rotation":[]}`,
		`{"labels":{"a":1}}`, `{"purpose":"MAC"}`, `{"purpose":99}`, `{"key":null}`, `{"key":"a","key":"b"}`, `{"nosuch":{}}`, `[]`, `null`, `{`, "{\"key\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(pb.CreateKeyRequest)
		e := readJSON(data, m)
		want := new(pb.CreateKeyRequest)
		if err := protojson.Unmarshal(data, want); (err == nil) != (e == nil) || err == nil && !proto.Equal(m, want) {
			t.Fatalf("%q: %v, protojson %v", data, e, err)
		}
		if e != nil && (e.Code != kms.InvalidArgument || e.Message == "" || !json.Valid(errorJSON(e, "r"))) {
			t.Errorf("%q: %+v", data, e)
		}
	})
}

func TestJSONErrorsNameTheField(t *testing.T) {
	for body, want := range map[string]struct{ field, says string }{
		`{"key":7}`:                         {"key", "string"},
		`{"labels":{"a":1}}`:                {"labels", "object of strings"},
		`{"rotation":{"period":7}}`:         {"rotation.period", "3600s"},
		`{"rotation":{"maxUses":"many"}}`:   {"rotation.maxUses", "whole number"},
		`{"rotation":[]}`:                   {"rotation", "JSON object"},
		`{"purpose":"CURSE"}`:               {"purpose", "Purpose"},
		`{"colour":"red"}`:                  {"colour", "not a field"},
		`{"key":"a","idempotencyKey":true}`: {"idempotencyKey", "string"},
		`{"key":"a","key":"b"}`:             {"", "twice"},
		`{"key":"4111`:                      {"", "not valid JSON"},
		`7`:                                 {"", "JSON object"},
	} {
		e := readJSON([]byte(body), new(pb.CreateKeyRequest))
		if e == nil || e.Field != want.field || !strings.Contains(e.Message, want.says) || strings.Contains(e.Message, "4111") {
			t.Errorf("%s: %+v, want %+v", body, e, want)
		}
	}
}
