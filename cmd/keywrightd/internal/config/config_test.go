package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const samplePath = "../../../../docs/keywrightd.yaml"

func sample(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(samplePath)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestSampleShowsTheDefaults(t *testing.T) {
	c, problems := Parse(sample(t))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if want := Default(); !reflect.DeepEqual(*c, want) {
		t.Fatalf("the sample says\n%+v\nbut the defaults are\n%+v", *c, want)
	}
}

func TestSampleShowsEveryField(t *testing.T) {
	var document yaml.Node
	if err := yaml.Unmarshal(sample(t), &document); err != nil {
		t.Fatal(err)
	}
	compareFields(t, "", reflect.TypeFor[Config](), document.Content[0])
}

// compareFields fails for each field of a struct that the mapping lacks.
func compareFields(t *testing.T, path string, structure reflect.Type, mapping *yaml.Node) {
	t.Helper()
	shown := map[string]*yaml.Node{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		shown[mapping.Content[i].Value] = mapping.Content[i+1]
	}
	for field := range structure.Fields() {
		name := field.Tag.Get("yaml")
		if shown[name] == nil {
			t.Errorf("the sample lacks %s%s", path, name)
		} else if field.Type.Kind() == reflect.Struct {
			compareFields(t, path+name+".", field.Type, shown[name])
		}
	}
}

const minimal = "hsm: {module: /lib/p11.so, token_label: t, pin: {file: pin}}\n"

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keywrightd.yaml")
	text := minimal + "data_dir: data\naudit: {interval: 25ms, segment_bytes: 2GiB}\ntls:\n  client_cas: [{name: corp, file: ca.pem}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range []struct{ got, want any }{
		{c.StoreDir(), filepath.Join(dir, "data", "store")},
		{c.AuditDir(), filepath.Join(dir, "data", "audit")},
		{c.HSM.PIN.File, filepath.Join(dir, "pin")},
		{c.HSM.Module, "/lib/p11.so"},
		{c.TLS.ClientCAs[0].File, filepath.Join(dir, "ca.pem")},
		{c.Audit.Interval, Duration(25 * time.Millisecond)},
		{c.Audit.SegmentBytes, Bytes(2 << 30)},
		{c.Listen, Default().Listen},
	} {
		if check.got != check.want {
			t.Errorf("got %v, want %v", check.got, check.want)
		}
	}
}

func TestLoadSaysThatTheFileIsMissing(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "absent.yaml"))
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "--config") {
		t.Fatalf("error %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"empty file":         {"", "hsm.module is missing"},
		"unknown field":      {minimal + "cache_byte: 1GiB\n", "line 2: field cache_byte is unknown"},
		"unknown nested":     {minimal + "listen:\n  grcp: 127.0.0.1:1\n", "line 3: field grcp is unknown"},
		"field twice":        {minimal + "data_dir: a\ndata_dir: b\n", "line 3: mapping key \"data_dir\" already defined"},
		"two documents":      {minimal + "---\ndata_dir: b\n", "more than one YAML document"},
		"no YAML":            {"\tdata_dir: b\n", "cannot start any token"},
		"a list":             {"- a\n", "line 1"},
		"duration":           {minimal + "audit: {interval: 10}\n", `line 2: "10" is no duration`},
		"size":               {minimal + "cache_bytes: 1MB\n", `line 2: "1MB" is no size`},
		"negative size":      {minimal + "cache_bytes: -5\n", `line 2: "-5" is no size`},
		"huge size":          {minimal + "cache_bytes: 9999999999GiB\n", "is no size"},
		"small cache":        {minimal + "cache_bytes: 1KiB\n", "cache_bytes is 1024"},
		"number":             {minimal + "limits: {max_in_flight: many}\n", "line 2"},
		"no data_dir":        {minimal + "data_dir: ''\n", "data_dir is empty"},
		"no token":           {"hsm: {module: m, pin: {fd: 3}}\n", "hsm.token_label is missing"},
		"no PIN":             {"hsm: {module: m, token_label: t}\n", "hsm.pin has 0 sources"},
		"two PINs":           {"hsm: {module: m, token_label: t, pin: {file: a, env: B}}\n", "hsm.pin has 2 sources"},
		"PIN on stdout":      {"hsm: {module: m, token_label: t, pin: {fd: 1}}\n", "hsm.pin.fd is 1"},
		"PIN inline":         {"hsm: {module: m, token_label: t, pin: hunter-two}\n", "line 1"},
		"sessions":           {"hsm: {module: m, token_label: t, pin: {fd: 3}, max_sessions: -1}\n", "hsm.max_sessions is -1"},
		"timeout":            {"hsm: {module: m, token_label: t, pin: {fd: 3}, timeout: 0s}\n", "hsm.timeout is 0s"},
		"address":            {minimal + "listen: {grpc: here}\n", `listen.grpc is "here"`},
		"port":               {minimal + "listen: {rest: '127.0.0.1:99999'}\n", "listen.rest is"},
		"same port":          {minimal + "listen: {rest: '127.0.0.1:7700'}\n", "as is listen.grpc"},
		"plaintext":          {minimal + "listen: {rest: '0.0.0.0:1'}\ntls: {plaintext: true}\n", "only loopback addresses are allowed"},
		"key without cert":   {minimal + "tls: {key_file: k}\n", "tls.cert_file and tls.key_file go together"},
		"bundle name":        {minimal + "tls: {client_cas: [{name: 'a:b', file: f}]}\n", "tls.client_cas[0].name"},
		"bundle name local":  {minimal + "tls: {client_cas: [{name: local, file: f}]}\n", "choose another"},
		"bundle twice":       {minimal + "tls: {client_cas: [{name: a, file: f}, {name: a, file: g}]}\n", "stands there twice"},
		"bundle file":        {minimal + "tls: {client_cas: [{name: a}]}\n", "tls.client_cas[0].file is missing"},
		"bundle field":       {minimal + "tls: {client_cas: [{name: a, path: f}]}\n", "field path is unknown"},
		"message size":       {minimal + "limits: {max_message_bytes: 1KiB}\n", "limits.max_message_bytes is 1024"},
		"in flight":          {minimal + "limits: {max_in_flight: 0}\n", "limits.max_in_flight is 0"},
		"call timeout":       {minimal + "limits: {call_timeout: 1ms}\n", "limits.call_timeout is 1ms"},
		"drain":              {minimal + "limits: {drain_timeout: 2h}\n", "limits.drain_timeout is 2h0m0s"},
		"durability":         {minimal + "audit: {durability: never}\n", `audit.durability is "never"`},
		"interval":           {minimal + "audit: {interval: 1m}\n", "audit.interval is 1m0s"},
		"segment":            {minimal + "audit: {segment_bytes: 1}\n", "audit.segment_bytes is 1"},
		"reserve":            {minimal + "audit: {reserve_bytes: 0}\n", "audit.reserve_bytes is 0"},
		"revisions":          {minimal + "store: {keep_revisions: 0}\n", "store.keep_revisions is 0"},
		"negative revisions": {minimal + "store: {keep_revisions: -1}\n", "line 2"},
		"free bytes":         {minimal + "store: {min_free_bytes: 1}\n", "store.min_free_bytes is 1"},
		"level":              {minimal + "log: {level: loud}\n", `log.level is "loud"`},
		"format":             {minimal + "log: {format: xml}\n", `log.format is "xml"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keywrightd.yaml")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v\nlacks %q", err, test.want)
			}
			if strings.Contains(err.Error(), "config.") || strings.Contains(err.Error(), "hunter-two") {
				t.Errorf("error %v names a Go type, or what may be a PIN", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	seeds := []string{minimal, "cache_bytes: 1MiB", "hsm: {pin: {fd: 3}}", "tls: {client_cas: [{name: a, file: b}]}"}
	if text, err := os.ReadFile(samplePath); err != nil {
		f.Fatal(err)
	} else {
		seeds = append(seeds, string(text))
	}
	for _, seed := range seeds {
		if _, problems := Parse([]byte(seed)); len(problems) > 0 {
			f.Fatalf("seed %q: %v", seed, problems)
		}
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, problems := Parse(text)
		if (c == nil) != (len(problems) > 0) {
			t.Fatalf("configuration %v with problems %q", c, problems)
		}
		if c != nil {
			c.Problems() // whatever was parsed can be judged
		}
	})
}
