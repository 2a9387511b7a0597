package flatjson

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

func verifyFields() []Field[pb.VerifyRequest] {
	type q = pb.VerifyRequest
	return []Field[q]{
		Bytes("message", func(m *q) *[]byte { return &m.Message }),
		Bytes("digest", func(m *q) *[]byte { return &m.Digest }),
		Bytes("signature", func(m *q) *[]byte { return &m.Signature }),
		Enum("format", pb.SignatureFormat_value, func(m *q) *pb.SignatureFormat { return &m.Format }),
		Uint32("version", func(m *q) *uint32 { return &m.Version }),
	}
}

func dataKeyFields() []Field[pb.GenerateDataKeyRequest] {
	type q = pb.GenerateDataKeyRequest
	return []Field[q]{
		Uint32("numBytes", func(m *q) *uint32 { return &m.NumBytes }),
		Bytes("aad", func(m *q) *[]byte { return &m.Aad }),
		Bool("omitPlaintext", func(m *q) *bool { return &m.OmitPlaintext }),
	}
}

// TestScan asserts which inputs the scanner takes, so that it cannot pass the
// fuzz test by declining everything.
func TestScan(t *testing.T) {
	for _, c := range []struct {
		body  string
		takes bool
	}{
		{`{}`, true},
		{` { } ` + "\n", true},
		{`{"message":"aGVsbG8="}`, true},
		{`{"message": "aGVsbG8=", "signature": "AAEC", "format": "JWS", "version": 7}`, true},
		{`{"version":0}`, true},
		{`{"version":4294967295}`, true},
		{`{"message":""}`, true},
		{`{"version":4294967296}`, false},
		{`{"version":07}`, false},
		{`{"version":-1}`, false},
		{`{"version":1.0}`, false},
		{`{"version":1e0}`, false},
		{`{"version":"1"}`, false},
		{`{"version":null}`, false},
		{`{"message":"aGVsbG8"}`, false},
		{`{"message":"-_-_"}`, false},
		{"{\"message\":\"aGVs\nbG8=\"}", false},
		{`{"message":"aGVs\u0062G8="}`, false},
		{`{"message":"AA==","message":"AA=="}`, false},
		{`{"format":"PEM"}`, false},
		{`{"format":1}`, false},
		{`{"unknown":1}`, false},
		{`{"message":"AA=="} x`, false},
		{`{"message":"AA=="`, false},
		{`{"message":"AA==",}`, false},
		{`{,}`, false},
		{`[]`, false},
		{``, false},
		{`null`, false},
	} {
		if got := Scan(new(Scanner), verifyFields(), []byte(c.body), new(pb.VerifyRequest)); got != c.takes {
			t.Errorf("Scan(%s) = %v, want %v", c.body, got, c.takes)
		}
	}
}

// FuzzScan asserts that the scanner declines or reads what protojson reads.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{"message":"aGVsbG8=","digest":"","signature":"AAEC","format":"RAW","version":3}`,
		`{"numBytes":32,"aad":"AA==","omitPlaintext":true}`,
		`{"omitPlaintext":false,"numBytes":0}`, `{"message":"AB=="}`, `{"format":"DER"}`, `{ "version" : 1 }`, `{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		compare(t, verifyFields(), body, new(pb.VerifyRequest), new(pb.VerifyRequest))
		compare(t, dataKeyFields(), body, new(pb.GenerateDataKeyRequest), new(pb.GenerateDataKeyRequest))
	})
}

func compare[M any](t *testing.T, fields []Field[M], body []byte, got, want *M) {
	if !Scan(new(Scanner), fields, body, got) {
		return
	}
	if err := protojson.Unmarshal(body, any(want).(proto.Message)); err != nil {
		t.Fatalf("Scan takes %q, protojson refuses it: %v", body, err)
	}
	if !proto.Equal(any(got).(proto.Message), any(want).(proto.Message)) {
		t.Fatalf("%q: Scan reads %v, protojson %v", body, got, want)
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	fields, body := verifyFields(), []byte(`{"message":"aGVsbG8=","signature":"AAEC","version":3}`)
	s, m := new(Scanner), new(pb.VerifyRequest)
	allocations := testing.AllocsPerRun(100, func() {
		if !Scan(s, fields, body, m) {
			t.Fatal("declined")
		}
	})
	if allocations > 0 {
		t.Errorf("Scan allocates %v times", allocations)
	}
}

func TestAppend(t *testing.T) {
	dst := AppendBytes(Begin(nil), "mac", []byte("hello"))
	dst = End(AppendBool(AppendUint32(dst, "version", 7), "valid", true))
	if want := `{"mac":"aGVsbG8=","version":7,"valid":true}`; string(dst) != want {
		t.Errorf("got %s, want %s", dst, want)
	}
	if got := string(End(AppendBytes(Begin(nil), "plaintext", nil))); !strings.Contains(got, `""`) {
		t.Errorf("no bytes are written as %s", got)
	}
}
