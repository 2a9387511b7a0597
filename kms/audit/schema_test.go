package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// schema is the part of JSON Schema (draft 2020-12) that docs/audit-line.schema.json
// uses; a word beyond it is refused when the file is read.
type schema struct {
	Dialect     string `json:"$schema"`
	ID          string `json:"$id"`
	Title       string `json:"title"`
	Description string `json:"description"`

	Ref        string             `json:"$ref"`
	Defs       map[string]*schema `json:"$defs"`
	Type       string             `json:"type"`
	Const      json.Number        `json:"const"`
	Enum       []string           `json:"enum"`
	Pattern    string             `json:"pattern"`
	Minimum    json.Number        `json:"minimum"`
	Maximum    json.Number        `json:"maximum"`
	Items      *schema            `json:"items"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Additional json.RawMessage    `json:"additionalProperties"`
}

func readSchema(t *testing.T) *schema {
	t.Helper()
	text, err := os.ReadFile("../../docs/audit-line.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// check returns what is wrong with a value, which was decoded with UseNumber.
func (s *schema) check(root *schema, at string, value any) error {
	if s.Ref != "" {
		target := root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
		if target == nil {
			return fmt.Errorf("the schema has no %s", s.Ref)
		}
		return target.check(root, at, value)
	}
	switch value := value.(type) {
	case string:
		return s.checkText(at, value)
	case json.Number:
		return s.checkNumber(at, value)
	case []any:
		if s.Type != "array" {
			return fmt.Errorf("%s is a list", at)
		}
		for i, item := range value {
			if err := s.Items.check(root, fmt.Sprintf("%s[%d]", at, i), item); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		return s.checkObject(root, at, value)
	default:
		return fmt.Errorf("%s is a %T", at, value)
	}
}

func (s *schema) checkText(at, text string) error {
	switch {
	case s.Type != "string":
		return fmt.Errorf("%s is a text", at)
	case s.Enum != nil && !slices.Contains(s.Enum, text):
		return fmt.Errorf("%s is %q, not one of %q", at, text, s.Enum)
	case s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(text):
		return fmt.Errorf("%s is %q, which does not match %s", at, text, s.Pattern)
	}
	return nil
}

func (s *schema) checkNumber(at string, number json.Number) error {
	n, ok := new(big.Int).SetString(number.String(), 10)
	beyond := func(bound json.Number, sign int) bool {
		limit, isNumber := new(big.Int).SetString(bound.String(), 10)
		return isNumber && n.Cmp(limit) == sign
	}
	switch {
	case s.Type != "integer" || !ok:
		return fmt.Errorf("%s is %s", at, number)
	case s.Const != "" && s.Const != number, beyond(s.Minimum, -1), beyond(s.Maximum, 1):
		return fmt.Errorf("%s is %s, out of bounds", at, number)
	}
	return nil
}

func (s *schema) checkObject(root *schema, at string, object map[string]any) error {
	if s.Type != "object" {
		return fmt.Errorf("%s is an object", at)
	}
	for _, name := range s.Required {
		if _, ok := object[name]; !ok {
			return fmt.Errorf("%s lacks %s", at, name)
		}
	}
	var others *schema
	if string(s.Additional) != "false" {
		if err := json.Unmarshal(s.Additional, &others); err != nil {
			return fmt.Errorf("additionalProperties of %s: %w", at, err)
		}
	}
	for name, value := range object {
		member := s.Properties[name]
		if member == nil {
			member = others
		}
		if member == nil {
			return fmt.Errorf("%s has a field %s", at, name)
		}
		if err := member.check(root, at+"."+name, value); err != nil {
			return err
		}
	}
	return nil
}

func (s *schema) checkLine(line []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	return s.check(s, "line", value)
}

// What a real server wrote, one line at least of each action and phase that came
// up, is what the published schema says, and is read back as it was written.
func TestGoldenLogMatchesSchema(t *testing.T) {
	s := readSchema(t)
	golden, err := os.ReadFile("testdata/golden.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range bytes.Lines(golden) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if err := s.checkLine(line); err != nil {
			t.Errorf("%v:\n%s", err, line)
		}
		e, err := ParseEntry(line)
		if err != nil {
			t.Errorf("%v:\n%s", err, line)
		} else if again := e.AppendJSON(nil); !bytes.Equal(again, line) {
			t.Errorf("written again\n%s\nwas\n%s", again, line)
		}
		n++
	}
	if n < 50 {
		t.Errorf("the golden log has %d lines only", n)
	}
	for _, sample := range samples {
		if err := s.checkLine([]byte(sample.line)); err != nil {
			t.Errorf("%s: %v", sample.name, err)
		}
	}
}

// docs/audit.md names each action that policies do not know, and each detail, of
// what the golden log has.
func TestGoldenDetailsAreDocumented(t *testing.T) {
	golden, err := os.ReadFile("testdata/golden.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(golden) {
		e, err := ParseEntry(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		names := slices.Collect(maps.Keys(e.Details))
		if e.Phase == PhaseEvent || len(e.Details) > 0 {
			names = append(names, e.Action)
		}
		for _, name := range names {
			isPath := strings.Contains(name, "/") // of a policy, in the first entry
			if !isPath && !bytes.Contains(text, []byte("`"+name+"`")) {
				t.Errorf("docs/audit.md does not name %q of %s", name, e.Action)
			}
		}
	}
}

// The schema names exactly the fields that there are: those of an entry all of
// whose fields are set.
func TestSchemaHasAllFields(t *testing.T) {
	s := readSchema(t)
	entry := Entry{Sequence: 1, Time: noon}
	setAll(reflect.ValueOf(&entry).Elem())
	entry.Phase, entry.Decision, entry.Outcome, entry.ContextHash = PhaseEvent, Deny, "OK", "ab"
	entry.Batch[0].ContextHashes, entry.Records = []string{"ab"}, map[string]string{"path": ""}
	line := entry.AppendJSON(nil)
	if err := s.checkLine(line); err != nil {
		t.Errorf("%v:\n%s", err, line)
	}
	var fields map[string]json.RawMessage
	var rows struct{ Batch []map[string]json.RawMessage }
	if err := json.Unmarshal(line, &fields); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(line, &rows); err != nil {
		t.Fatal(err)
	}
	sameNames(t, "a line", maps.Keys(fields), maps.Keys(s.Properties))
	sameNames(t, "a row of a batch", maps.Keys(rows.Batch[0]), maps.Keys(s.Properties["batch"].Items.Properties))
	if s.ID != fmt.Sprintf("urn:keywright:audit-line:%d", FormatVersion) || s.Properties["v"].Const != json.Number(fmt.Sprint(FormatVersion)) {
		t.Errorf("the schema is of version %s, lines are of %d", s.ID, FormatVersion)
	}
}

func sameNames(t *testing.T, what string, got, want func(func(string) bool)) {
	t.Helper()
	if g, w := slices.Sorted(got), slices.Sorted(want); !slices.Equal(g, w) {
		t.Errorf("%s has the fields %q, the schema %q", what, g, w)
	}
}

// setAll sets every field that is still zero.
func setAll(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Field(i).IsZero() {
				setAll(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		setAll(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("name"), reflect.ValueOf("text"))
	case reflect.String:
		v.SetString("text")
	case reflect.Int64:
		v.SetInt(5000)
	default:
		v.SetUint(7)
	}
}

// The schema refuses what is no line, so the tests above can fail.
func TestSchemaRefuses(t *testing.T) {
	s := readSchema(t)
	const head = `{"v":1,"seq":0,"time":"2026-11-23T12:00:00.123456Z"`
	if err := s.checkLine([]byte(head + `}`)); err != nil {
		t.Fatal(err)
	}
	for _, rest := range []string{
		`,"unknown":1}`, `,"key":7}`, `,"key":["k"]}`, `,"phase":"begin"}`, `,"version":"1"}`, `,"version":4294967296}`,
		`,"version":1.5}`, `,"intent":-1}`, `,"groups":"g"}`, `,"groups":[1]}`, `,"context":{"a":1}}`, `,"details":[]}`, `,"key_id":"7"}`,
		`,"records":{"path":"7"}}`, `,"batch":[{"plaintext":"x"}]}`, `,"batch":{}}`, `,"key":null}`,
	} {
		if err := s.checkLine([]byte(head + rest)); err == nil {
			t.Errorf("accepted %s%s", head, rest)
		}
	}
	for _, line := range []string{`{}`, `[]`, strings.Replace(head, `"v":1`, `"v":2`, 1) + `}`, strings.Replace(head, `"seq":0,`, ``, 1) + `}`} {
		if err := s.checkLine([]byte(line)); err == nil {
			t.Errorf("accepted %s", line)
		}
	}
}
