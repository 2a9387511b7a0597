package manage

import (
	"strings"
	"testing"
)

// FuzzParseCases checks that no table makes the parser panic, and that every case
// that it accepts can be asked and says what is expected.
func FuzzParseCases(f *testing.F) {
	for _, table := range []string{
		"- {principal: 'Token::\"x\"', action: Encrypt, resource: a/b, expect: deny}",
		`[{"principal": "p", "action": "a", "groups": ["g"], "context": {"k": "v"}, "time": "2026-01-31T12:00:00Z", "expect": "allow"}]`,
		"- principal: &p x\n  action: *p\n  expect: allow\n", "- x\n---\n- y", "a: b", "- 1", "[", "\xff", "- {principal: p, action: a, time: never, expect: deny}", "",
	} {
		f.Add([]byte(table))
	}
	f.Fuzz(func(t *testing.T, table []byte) {
		cases, err := parseCases(table)
		if err == nil && len(cases) == 0 {
			t.Error("an empty table is accepted")
		}
		for _, c := range cases {
			q := c.proto()
			if q.Principal == "" || q.Action == "" || strings.Contains(q.Key, "/") || c.Expect != "allow" && c.Expect != "deny" {
				t.Errorf("accepted %+v", c)
			}
			if q.Namespace == "" && q.Key != "" || c.Resource != strings.TrimSuffix(q.Namespace+"/"+q.Key, "/") {
				t.Errorf("resource %q is read as %q, %q", c.Resource, q.Namespace, q.Key)
			}
		}
	})
}
