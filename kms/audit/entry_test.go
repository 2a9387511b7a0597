package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var samples = []struct {
	name  string
	entry Entry
	line  string
}{
	{
		"empty", Entry{Time: noon},
		`{"v":1,"seq":0,"time":"2026-11-23T12:00:00.123456Z"}`,
	},
	{
		"operation",
		Entry{
			Sequence: 7, Time: noon, RequestID: "r1", Principal: "p", Method: "token", TokenID: "t9", Groups: []string{"g1", "g2"}, Source: "192.0.2.1:9",
			Action: "encrypt", Namespace: "n", Key: "k", KeyID: 0xab, Version: 2, Decision: Allow, Policies: []string{"a", "b"},
			PolicyRevision: 4, Outcome: "OK", Reason: "why", EncryptionContext: map[string]string{"b": "2", "a": ""}, Latency: 12 * time.Microsecond,
		},
		`{"v":1,"seq":7,"time":"2026-11-23T12:00:00.123456Z","request_id":"r1","principal":"p","method":"token","token_id":"t9","groups":["g1","g2"],"source":"192.0.2.1:9",` +
			`"action":"encrypt","namespace":"n","key":"k","key_id":"00000000000000ab","version":2,"decision":"allow","policies":["a","b"],"policy_revision":4,` +
			`"outcome":"OK","reason":"why","context":{"a":"","b":"2"},"latency_us":12}`,
	},
	{
		"outcome", Entry{Sequence: 9, Time: noon, Phase: PhaseOutcome, Intent: 8, Details: map[string]string{"primary": "3"},
			Records: map[string]string{"keys/2": "", "keys/1": "00112233445566778899aabbccddeeff"}},
		`{"v":1,"seq":9,"time":"2026-11-23T12:00:00.123456Z","phase":"outcome","intent":8,"details":{"primary":"3"},"records":{"keys/1":"00112233445566778899aabbccddeeff","keys/2":""}}`,
	},
	{
		"batch",
		Entry{Time: noon, ContextHash: "f0", Batch: []BatchCount{
			{Action: "decrypt", Namespace: "n", Key: "k", KeyID: 1, Version: 1, OK: 9, Failed: 1, ContextHashes: []string{"c1", "c2"}}, {Failed: 2}, {},
		}},
		`{"v":1,"seq":0,"time":"2026-11-23T12:00:00.123456Z","context_hash":"f0","batch":[{"action":"decrypt","namespace":"n","key":"k",` +
			`"key_id":"0000000000000001","version":1,"ok":9,"failed":1,"context_hashes":["c1","c2"]},{"failed":2},{}]}`,
	},
	{
		"escapes", Entry{Time: noon, Key: "\"\\\n\x00\x7f\u009b\u202e\ufeff/é€😀<>&"},
		`{"v":1,"seq":0,"time":"2026-11-23T12:00:00.123456Z","key":"\"\\\u000a\u0000\u007f\u009b\u202e\ufeff/é€😀<>&"}`,
	},
	{
		"largest", Entry{Sequence: 1<<64 - 1, Time: time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC), KeyID: 1<<64 - 1, Version: 1<<32 - 1},
		`{"v":1,"seq":18446744073709551615,"time":"9999-12-31T23:59:59.999999Z","key_id":"ffffffffffffffff","version":4294967295}`,
	},
}

func TestEntryLines(t *testing.T) {
	for _, sample := range samples {
		t.Run(sample.name, func(t *testing.T) {
			line := sample.entry.AppendJSON([]byte("before "))
			if got := string(line); got != "before "+sample.line {
				t.Errorf("encoded\n%s\nwant\n%s", got, sample.line)
			}
			if !json.Valid([]byte(sample.line)) {
				t.Error("the line is not JSON")
			}
			back, err := ParseEntry([]byte(sample.line))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, sample.entry) {
				t.Errorf("parsed\n%+v\nwant\n%+v", back, sample.entry)
			}
		})
	}
}

func TestEntryNormalises(t *testing.T) {
	elsewhere := time.FixedZone("elsewhere", 3600)
	for _, test := range []struct {
		name     string
		in, want Entry
	}{
		{"zone and nanoseconds", Entry{Time: noon.Add(999).In(elsewhere)}, Entry{Time: noon}},
		{"year out of range", Entry{Time: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)}, Entry{}},
		{"negative latency", Entry{Time: noon, Latency: -time.Second}, Entry{Time: noon}},
		{"part of a microsecond", Entry{Time: noon, Latency: 1999}, Entry{Time: noon, Latency: 1000}},
		{"empty containers", Entry{Time: noon, Policies: []string{}, EncryptionContext: map[string]string{}, Batch: []BatchCount{}, Groups: []string{}, Records: map[string]string{}}, Entry{Time: noon}},
		{"invalid UTF-8", Entry{Time: noon, Key: "a\xff\xfeb", Details: map[string]string{"\xff": "1", "z": "\x80"}},
			Entry{Time: noon, Key: "a\uFFFD\uFFFDb", Details: map[string]string{"\uFFFD": "1", "z": "\uFFFD"}}},
		{"keys equal once repaired", Entry{Time: noon, Details: map[string]string{"\xfe": "1", "\xff": "2"}},
			Entry{Time: noon, Details: map[string]string{"\uFFFD": "2"}}},
	} {
		got, err := ParseEntry(test.in.AppendJSON(nil))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v (%v), want %+v", test.name, got, err, test.want)
		}
	}
}

func TestParseEntryRefuses(t *testing.T) {
	const start = `{"v":1,"seq":0,"time":"2026-11-23T12:00:00.123456Z"`
	for name, line := range map[string]string{
		"nothing":            ``,
		"newline":            start + "}\n",
		"space":              start + ` }`,
		"no end":             start,
		"more":               start + `}}`,
		"other version":      strings.Replace(start, `"v":1`, `"v":2`, 1) + `}`,
		"zero before":        strings.Replace(start, `"seq":0`, `"seq":00`, 1) + `}`,
		"sequence too large": strings.Replace(start, `"seq":0`, `"seq":18446744073709551616`, 1) + `}`,
		"no time":            `{"v":1,"seq":0}`,
		"comma in time":      strings.Replace(start, `.123456`, `,123456`, 1) + `}`,
		"30 February":        strings.Replace(start, `11-23`, `02-30`, 1) + `}`,
		"zone":               strings.Replace(start, `123456Z`, `12345+01:00`, 1) + `}`,
		"unknown field":      start + `,"colour":"red"}`,
		"other order":        start + `,"key":"k","namespace":"n"}`,
		"twice":              start + `,"key":"k","key":"k"}`,
		"empty text":         start + `,"key":""}`,
		"number for text":    start + `,"key":1}`,
		"zero":               start + `,"intent":0}`,
		"negative":           start + `,"intent":-1}`,
		"version too large":  start + `,"version":4294967296}`,
		"latency too large":  start + `,"latency_us":9223372036854776}`,
		"unknown phase":      start + `,"phase":"later"}`,
		"short id":           start + `,"key_id":"ab"}`,
		"upper case id":      start + `,"key_id":"00000000000000AB"}`,
		"zero id":            start + `,"key_id":"0000000000000000"}`,
		"signed id":          start + `,"key_id":"+0000000000000ab"}`,
		"empty list":         start + `,"policies":[]}`,
		"open list":          start + `,"policies":["a"}`,
		"empty pairs":        start + `,"context":{}}`,
		"unsorted pairs":     start + `,"context":{"b":"1","a":"2"}}`,
		"equal keys":         start + `,"context":{"a":"1","a":"2"}}`,
		"open pairs":         start + `,"context":{"a":"1",}}`,
		"batch commas":       start + `,"batch":[{,"ok":1}]}`,
		"raw control":        start + ",\"key\":\"a\tb\"}",
		"raw delete":         start + ",\"key\":\"a\x7fb\"}",
		"raw direction":      start + ",\"key\":\"a\u202eb\"}",
		"invalid UTF-8":      start + ",\"key\":\"a\xffb\"}",
		"short escape":       start + `,"key":"\n"}`,
		"needless escape":    start + `,"key":"\u0041"}`,
		"upper case escape":  start + `,"key":"\u000A"}`,
		"escaped quote":      start + `,"key":"\u0022"}`,
		"half escape":        start + `,"key":"\u00`,
		"backslash":          start + `,"key":"\`,
		"open text":          start + `,"key":"a`,
	} {
		if e, err := ParseEntry([]byte(line)); !errors.Is(err, ErrCorrupt) || !reflect.DeepEqual(e, Entry{}) {
			t.Errorf("%s: %+v, %v; want ErrCorrupt", name, e, err)
		}
	}
}

// TestNoByteMayChange flips each bit of a line: no other line may parse to the
// same entry.
func TestNoByteMayChange(t *testing.T) {
	line := operation("r").AppendJSON(nil)
	want, err := ParseEntry(line)
	if err != nil {
		t.Fatal(err)
	}
	for i := range line {
		for bit := range 8 {
			changed := bytes.Clone(line)
			changed[i] ^= 1 << bit
			if got, err := ParseEntry(changed); err == nil && reflect.DeepEqual(got, want) {
				t.Errorf("byte %d changed without effect: %s", i, changed)
			}
		}
	}
}

// FuzzParseEntry: whatever parses is the one spelling of its entry, and JSON.
func FuzzParseEntry(f *testing.F) {
	for _, sample := range samples {
		f.Add([]byte(sample.line))
	}
	seeds, err := filepath.Glob("testdata/fuzz/FuzzParseEntry/*")
	if err != nil || len(seeds) < 2 {
		f.Fatalf("%d seeds in testdata, want at least 2 (%v)", len(seeds), err)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := ParseEntry(line)
		if err != nil {
			return
		}
		if again := e.AppendJSON(nil); !bytes.Equal(again, line) {
			t.Fatalf("parsed %q, encodes to %q", line, again)
		}
		if !json.Valid(line) || bytes.ContainsAny(line, "\n\r") {
			t.Fatalf("accepted %q", line)
		}
	})
}

// FuzzAppendJSON: any values make one line of JSON that the standard library
// reads the same, and that parses back.
func FuzzAppendJSON(f *testing.F) {
	f.Add("key", "name", "value", uint64(1), uint32(2), int64(3))
	f.Add("\xff\x00\"\\\n", "\u2028", "\ufffd\u202e😀", uint64(0), uint32(0), int64(-1))
	f.Fuzz(func(t *testing.T, text, name, value string, number uint64, small uint32, when int64) {
		e := Entry{
			Sequence: number, Time: time.UnixMicro(when), RequestID: text, Phase: PhaseEvent, Intent: number, Principal: value, Key: name,
			KeyID: number, Version: small, Policies: []string{text, value}, EncryptionContext: map[string]string{name: value, text: name},
			Batch: []BatchCount{{Key: text, OK: small, ContextHashes: []string{value}}}, Details: map[string]string{text: value}, Groups: []string{name}, Records: map[string]string{name: text}, Latency: time.Duration(when),
		}
		line := e.AppendJSON(nil)
		back, err := ParseEntry(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if again := back.AppendJSON(nil); !bytes.Equal(again, line) {
			t.Fatalf("%q encodes again to %q", line, again)
		}
		var standard struct {
			RequestID string            `json:"request_id"`
			Key       string            `json:"key"`
			Context   map[string]string `json:"context"`
		}
		if err := json.Unmarshal(line, &standard); err != nil || !utf8.Valid(line) || bytes.ContainsAny(line, "\n\r") {
			t.Fatalf("%q: %v", line, err)
		}
		if standard.RequestID != back.RequestID || standard.Key != back.Key || !reflect.DeepEqual(standard.Context, back.EncryptionContext) {
			t.Fatalf("read %+v, the standard library %+v", back, standard)
		}
		if utf8.ValidString(text) && back.RequestID != text {
			t.Fatalf("%q came back as %q", text, back.RequestID)
		}
	})
}
