package vault

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// mounts are those that the configuration maps, the longest paths first.
type mounts []Mount

// Check tells what is wrong with the mounts.
func (c Config) Check() error {
	_, err := newMounts(c.Mounts)
	return err
}

func newMounts(given []Mount) (mounts, error) {
	m := slices.Clone(given)
	slices.SortFunc(m, func(a, b Mount) int {
		return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), cmp.Compare(a.Path, b.Path), cmp.Compare(a.VaultNamespace, b.VaultNamespace))
	})
	for i, one := range m {
		switch first, _, _ := strings.Cut(one.Path, "/"); {
		case one.Path == "" || one.Path != strings.Trim(one.Path, "/") || one.VaultNamespace != strings.Trim(one.VaultNamespace, "/"):
			return nil, fmt.Errorf("vault mount %q: path and vault_namespace are given without slashes around them, and path is not empty", one.Path)
		case first == "sys" || first == "auth":
			return nil, fmt.Errorf("vault mount %q: sys and auth are the server's own", one.Path)
		case i > 0 && m[i-1].Path == one.Path && m[i-1].VaultNamespace == one.VaultNamespace:
			return nil, fmt.Errorf("vault mount %q: given twice", one.Path)
		}
	}
	return m, nil
}

// find returns the namespace that a path, without /v1/, leads to, and the path below its
// mount. A Vault namespace may stand in the header, at the beginning of the path, or in parts in both.
func (m mounts) find(vaultNamespace, path string) (namespace, below string, ok bool) {
	whole := path
	if vaultNamespace != "" {
		whole = vaultNamespace + "/" + path
	}
	for _, mount := range m {
		prefix := mount.Path + "/"
		if mount.VaultNamespace != "" {
			prefix = mount.VaultNamespace + "/" + prefix
		}
		if below, ok := strings.CutPrefix(whole, prefix); ok && below != "" {
			return mount.Namespace, below, true
		}
	}
	if vaultNamespace != "" {
		return "", "", false
	}
	namespace, below, _ = strings.Cut(path, "/")
	return namespace, below, namespace != "" && below != ""
}

// of returns the mount, with its slash, of a path that it leads to; "" if none does.
func (m mounts) of(vaultNamespace, path string) (mount, namespace string) {
	path = strings.TrimSuffix(path, "/") + "/x"
	namespace, below, ok := m.find(vaultNamespace, path)
	if !ok {
		return "", ""
	}
	return strings.TrimSuffix(path, below), namespace
}
