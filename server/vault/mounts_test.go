package vault

import "testing"

func TestMounts(t *testing.T) {
	m, err := newMounts([]Mount{{Path: "a", Namespace: "short"}, {Path: "a/b", Namespace: "long"}, {Path: "transit", VaultNamespace: "team", Namespace: "team-transit"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ namespace, path, want, below string }{
		{"", "transit/encrypt/k", "transit", "encrypt/k"}, {"", "a/encrypt/k", "short", "encrypt/k"}, {"", "a/b/encrypt/k", "long", "encrypt/k"},
		{"team", "transit/keys/k", "team-transit", "keys/k"}, {"", "team/transit/keys/k", "team-transit", "keys/k"},
		{"other", "transit/keys/k", "", ""}, {"", "transit", "", ""}, {"", "transit/", "", ""}, {"", "", "", ""},
	} {
		namespace, below, ok := m.find(test.namespace, test.path)
		if ok != (test.want != "") || ok && (namespace != test.want || below != test.below) {
			t.Errorf("%q %q: %q %q %v", test.namespace, test.path, namespace, below, ok)
		}
	}
	if mount, namespace := m.of("team", "transit/encrypt/k"); mount != "transit/" || namespace != "team-transit" {
		t.Errorf("%q %q", mount, namespace)
	}
}
