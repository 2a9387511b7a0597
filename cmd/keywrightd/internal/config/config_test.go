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
	text := minimal + "data_dir: data\naudit: {interval: 25ms, segment_bytes: 2GiB}\ntls:\n  client_cas: [{name: corp, file: ca.pem}]\n" +
		"listen: {unix: [{path: s, mode: 0660, peers: [{uid: 0, principal: 'Workload::\"local:app\"'}]}],\n" +
		"  kubernetes: [{path: k, namespace: n, key: k, principal: 'Workload::\"local:k8s\"', uids: [0, 7]}]}\n"
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
		{c.Listen.GRPC, Default().Listen.GRPC},
		{c.Listen.Unix[0].Path, filepath.Join(dir, "s")},
		{c.Listen.Unix[0].Mode, Mode(0o660)},
		{*c.Listen.Unix[0].Peers[0].UID, uint32(0)},
		{c.Listen.Kubernetes[0].Path, filepath.Join(dir, "k")},
		{c.Listen.Kubernetes[0].UIDs[1], uint32(7)},
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
		"init arguments":     {"hsm: {module: m, token_label: t, pin: {fd: 3}, init_args: \"a\\0b\"}\n", "hsm.init_args has 3 bytes"},
		"sessions":           {"hsm: {module: m, token_label: t, pin: {fd: 3}, max_sessions: -1}\n", "hsm.max_sessions is -1"},
		"timeout":            {"hsm: {module: m, token_label: t, pin: {fd: 3}, timeout: 0s}\n", "hsm.timeout is 0s"},
		"loss":               {"hsm: {module: m, token_label: t, pin: {fd: 3}, on_loss: stop}\n", `hsm.on_loss is "stop": want serve or seal`},
		"loss after":         {"hsm: {module: m, token_label: t, pin: {fd: 3}, on_loss_after: 1ms}\n", "hsm.on_loss_after is 1ms"},
		"token PIN":          {"hsm: {module: m, token_label: t, pin: {fd: 3}, tokens: [{name: a, token_label: u}]}\n", "hsm.tokens[0].pin has 0 sources"},
		"token fd":           {"hsm: {module: m, token_label: t, pin: {fd: 3}, tokens: [{name: a, token_label: u, pin: {fd: 2}}]}\n", "hsm.tokens[0].pin.fd is 2"},
		"token timeout":      {"hsm: {module: m, token_label: t, pin: {fd: 3}, tokens: [{name: a, token_label: u, pin: {fd: 0}, timeout: 1ms}]}\n", "hsm.tokens[0].timeout is 1ms"},
		"token sessions":     {"hsm: {module: m, token_label: t, pin: {fd: 3}, tokens: [{name: a, token_label: u, pin: {fd: 4}, max_sessions: -1}]}\n", "hsm.tokens[0].max_sessions is -1"},
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
		"connection age":     {minimal + "limits: {connection_age: 5s}\n", "limits.connection_age is 5s"},
		"failures":           {minimal + "limits: {failed_authentications: -1}\n", "limits.failed_authentications is -1"},
		"caller quota":       {minimal + "limits: {caller_requests_per_second: 9000000000}\n", "limits.caller_requests_per_second is 9000000000"},
		"socket path":        {minimal + "listen: {unix: [{mode: 0660}]}\n", "listen.unix[0].path is missing"},
		"socket twice":       {minimal + "listen: {unix: [{path: s}, {path: s}]}\n", "stands there twice"},
		"socket mode":        {minimal + "listen: {unix: [{path: s, mode: 0888}]}\n", `line 2: "0888" is no mode`},
		"socket not mine":    {minimal + "listen: {unix: [{path: s, mode: 0066}]}\n", "listen.unix[0].mode is 066"},
		"peer without uid":   {minimal + "listen: {unix: [{path: s, peers: [{principal: 'User::\"a\"'}]}]}\n", "listen.unix[0].peers[0].uid is missing"},
		"peer twice":         {minimal + "listen: {unix: [{path: s, peers: [{uid: 1, principal: 'User::\"a\"'}, {uid: 1, principal: 'User::\"b\"'}]}]}\n", "1 stands there twice"},
		"peer a token":       {minimal + "listen: {unix: [{path: s, peers: [{uid: 1, principal: 'Token::\"a\"'}]}]}\n", "no principal of a local user"},
		"kubernetes path":    {minimal + "listen: {kubernetes: [{namespace: n, key: k, principal: 'User::\"a\"'}]}\n", "listen.kubernetes[0].path is missing"},
		"kubernetes, unix":   {minimal + "listen: {unix: [{path: s}], kubernetes: [{path: s, namespace: n, key: k, principal: 'User::\"a\"'}]}\n", "stands there twice"},
		"kubernetes space":   {minimal + "listen: {kubernetes: [{path: s, key: k, principal: 'User::\"a\"'}]}\n", "listen.kubernetes[0].namespace is \"\""},
		"kubernetes key":     {minimal + "listen: {kubernetes: [{path: s, namespace: n, key: n/k, principal: 'User::\"a\"'}]}\n", "listen.kubernetes[0].key is \"n/k\""},
		"kubernetes nobody":  {minimal + "listen: {kubernetes: [{path: s, namespace: n, key: k}]}\n", "listen.kubernetes[0].principal is wrong"},
		"peer group":         {minimal + "listen: {unix: [{path: s, peers: [{uid: 1, principal: 'User::\"a\"', groups: ['a b']}]}]}\n", "no group's name"},
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
	seeds := []string{minimal, "cache_bytes: 1MiB", "hsm: {pin: {fd: 3}}", "tls: {client_cas: [{name: a, file: b}]}",
		"listen: {unix: [{path: s, mode: 0660, peers: [{uid: 1, principal: 'User::\"a\"', groups: [g]}]}]}"}
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

// A further token takes from the first what it leaves out, but neither label nor PIN.
func TestTokens(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keywrightd.yaml")
	text := "hsm: {module: /lib/p11.so, token_label: t, pin: {env: PIN}, timeout: 7s, max_sessions: 3, tokens: [\n" +
		"{name: east, token_serial: s1, pin: {file: east.pin}}, {name: west, module: west.so, token_serial: s1, pin: {fd: 0}, timeout: 1s}]}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	east, west := c.HSM.Of(c.HSM.Tokens[0]), c.HSM.Of(c.HSM.Tokens[1])
	for _, check := range []struct{ got, want any }{
		{east.Module, "/lib/p11.so"}, {east.TokenLabel, ""}, {east.TokenSerial, "s1"}, {east.PIN, PIN{File: filepath.Join(dir, "east.pin"), FD: NoFD}},
		{east.Timeout, Duration(7 * time.Second)}, {east.MaxSessions, 3}, {len(east.Tokens), 0},
		{west.Module, filepath.Join(dir, "west.so")}, {west.PIN, PIN{FD: 0}}, {west.Timeout, Duration(time.Second)},
	} {
		if check.got != check.want {
			t.Errorf("got %v, want %v", check.got, check.want)
		}
	}
}
