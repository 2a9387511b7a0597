package kmsv2

import (
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v2 "k8s.io/kms/apis/v2"
)

// Limits of the API, in bytes, as the API server checks them.
const (
	MaxCiphertextBytes  = 1 << 10
	MaxKeyIDBytes       = 1 << 10
	MaxAnnotationsBytes = 32 << 10 // keys and values together
)

const maxNameBytes = 253 // of a domain name, RFC 1123

// label is one of a domain name (RFC 1123), in lower case as Kubernetes has them.
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

func checkEncrypt(q *v2.EncryptRequest) error {
	switch n := len(q.GetPlaintext()); {
	case n == 0:
		return invalid("plaintext is empty; give at least one byte")
	case n > MaxCiphertextBytes:
		return invalid("plaintext has %d bytes, and its ciphertext must not have more than %d", n, MaxCiphertextBytes)
	}
	return nil
}

func checkDecrypt(q *v2.DecryptRequest) error {
	if err := checkSize("ciphertext", len(q.GetCiphertext()), MaxCiphertextBytes); err != nil {
		return err
	}
	if err := checkSize("key_id", len(q.GetKeyId()), MaxKeyIDBytes); err != nil {
		return err
	}
	if err := checkAnnotations(q.GetAnnotations()); err != nil {
		return err
	}
	// What has no key id is left to the key, which refuses it and audits that.
	if made, ok := KeyID(q.GetCiphertext()); ok && made != q.GetKeyId() {
		return invalid("key_id is not the one that the ciphertext was made with")
	}
	return nil
}

func checkSize(field string, n, limit int) error {
	if n == 0 {
		return invalid("%s is empty", field)
	}
	if n > limit {
		return invalid("%s has %d bytes, the limit is %d", field, n, limit)
	}
	return nil
}

// checkAnnotations holds annotations against the API's rules. None are made here, and
// what others made means nothing here.
func checkAnnotations(annotations map[string][]byte) error {
	total := 0
	for name, value := range annotations {
		if !fullyQualified(name) {
			return invalid("annotations has a key that is no fully qualified domain name (RFC 1123)")
		}
		total += len(name) + len(value)
	}
	if total > MaxAnnotationsBytes {
		return invalid("annotations have %d bytes, the limit is %d", total, MaxAnnotationsBytes)
	}
	return nil
}

// fullyQualified tells whether a name has two labels or more; a last dot may follow.
func fullyQualified(name string) bool {
	name = strings.TrimSuffix(name, ".")
	labels := strings.Split(name, ".")
	if len(name) > maxNameBytes || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if !label.MatchString(l) {
			return false
		}
	}
	return true
}
