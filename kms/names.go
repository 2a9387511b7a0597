package kms

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keywright/keywright/keyring"
)

// systemNamespace holds what belongs to no namespace; no key can be made in it.
const systemNamespace = "system"

const (
	maxName        = 63
	maxLabels      = 64
	maxLabelKey    = 63
	maxLabelValue  = 255
	maxIdempotency = 128
	idPrefix       = "id:"
)

var nameSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// checkName reports how a namespace's, key's or policy's name breaks the syntax.
func checkName(field, name string) error {
	switch {
	case name == "":
		return invalid(field, "is empty; give a name of 1 to %d characters", maxName)
	case len(name) > maxName:
		return invalid(field, "has %d bytes, the limit is %d; choose a shorter name", len(name), maxName)
	case !nameSyntax.MatchString(name):
		return invalid(field, "has a character that names cannot have; use letters, digits, '.', '_' and '-', and begin with a letter or a digit")
	}
	return nil
}

func checkNamespaceName(name string) error {
	if err := checkName("namespace", name); err != nil {
		return err
	}
	if name == systemNamespace {
		return invalid("namespace", "%q is reserved for Keywright itself; choose another name", systemNamespace)
	}
	return nil
}

// ParseID reads 16 hexadecimal digits.
func ParseID(text string) (ID, error) {
	id, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 16 {
		return 0, invalid("key_id", "is not an id; an id has 16 hexadecimal digits")
	}
	return ID(id), nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return invalid("labels", "has %d entries, the limit is %d; use fewer labels", len(labels), maxLabels)
	}
	for k, v := range labels {
		if len(k) == 0 || len(k) > maxLabelKey || !printable(k) {
			return invalid("labels", "has a key that is empty, longer than %d bytes, or has control or invalid characters", maxLabelKey)
		}
		if len(v) > maxLabelValue || !printable(v) {
			return invalid("labels", "has a value for %q that is longer than %d bytes, or has control or invalid characters", k, maxLabelValue)
		}
	}
	return nil
}

func checkIdempotency(key string) error {
	if len(key) > maxIdempotency || !printable(key) {
		return invalid("idempotency_key", "is longer than %d bytes, or has control or invalid characters; use a random UUID", maxIdempotency)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// resolveAlgorithm completes purpose and algorithm from each other.
func resolveAlgorithm(purpose keyring.Purpose, name string) (*keyring.Algorithm, error) {
	if name == "" {
		if purpose == "" {
			purpose = keyring.PurposeEncryptDecrypt
		}
		a := keyring.Default(purpose)
		if a == nil {
			return nil, invalid("purpose", "%q is unknown", purpose)
		}
		return a, nil
	}
	a, ok := keyring.Lookup(name)
	if !ok {
		return nil, invalid("algorithm", "%q is unknown; ListAlgorithms names those there are", clip(name))
	}
	if purpose != "" && purpose != a.Purpose() {
		return nil, invalid("algorithm", "%s serves %s, not %s; choose another algorithm or leave the purpose out", name, a.Purpose(), purpose)
	}
	return a, nil
}

// clip shortens a caller's own text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(s[:most], ""), len(s))
}
