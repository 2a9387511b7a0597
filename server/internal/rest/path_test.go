package rest

import (
	"strings"
	"testing"
)

// FuzzSplitPath asserts that a path is taken apart without loss, or not at all.
func FuzzSplitPath(f *testing.F) {
	for _, seed := range []string{"/v1/namespaces/a/keys/b:encrypt", "/v1/namespaces/a/keys/:x", "/v1/namespaces//keys/b:x", "/v1/namespaces/a/keys/b/c:x", "/v1/namespaces/a:batch"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		namespace, key, verb, ok := splitPath(path)
		if !ok {
			return
		}
		if "/v1/namespaces/"+namespace+"/keys/"+key+":"+verb != path || namespace == "" || key == "" || strings.Contains(namespace+key+verb, "/") {
			t.Errorf("%q is split into %q, %q, %q", path, namespace, key, verb)
		}
	})
}
