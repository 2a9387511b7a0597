package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestErrors(t *testing.T) {
	conflict := fmt.Errorf("rotate: %w", &ConflictError{Key: "k", Want: 1, Have: 2})
	invalid := fmt.Errorf("put: %w", &InvalidError{Field: "key", Reason: "empty"})
	for _, test := range []struct {
		err, target error
		want        bool
	}{
		{conflict, ErrConflict, true},
		{conflict, ErrInvalid, false},
		{invalid, ErrInvalid, true},
		{invalid, ErrConflict, false},
		{ErrNoSpace, ErrUnavailable, true},
		{ErrUnavailable, ErrNoSpace, false},
		{ErrUnknown, ErrUnavailable, false},
	} {
		if got := errors.Is(test.err, test.target); got != test.want {
			t.Errorf("errors.Is(%v, %v) = %v", test.err, test.target, got)
		}
	}
}

// TestErrorsNameLimits checks that messages name field and limit, and never the
// value.
func TestErrorsNameLimits(t *testing.T) {
	secret := strings.Repeat("secret", MaxValueBytes/6+1)
	err := Txn{Puts: []Put{{Key: "a"}, {Key: "b", Value: []byte(secret)}}}.Validate()
	text := fmt.Sprintf("%v %+v", err, err)
	if !strings.Contains(text, "txn.puts[1].value") || !strings.Contains(text, fmt.Sprint(MaxValueBytes)) {
		t.Errorf("message %q names neither field nor limit", text)
	}
	if strings.Contains(text, "secret") {
		t.Error("message repeats the value")
	}
}

func TestPageLimit(t *testing.T) {
	for limit, want := range map[int]int{-5: DefaultPageRecords, 0: DefaultPageRecords, 1: 1, MaxPageRecords + 1: MaxPageRecords} {
		if got := PageLimit(limit); got != want {
			t.Errorf("PageLimit(%d) = %d, want %d", limit, got, want)
		}
	}
}
