package command

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
)

func TestExitCode(t *testing.T) {
	tests := map[codes.Code]int{
		codes.InvalidArgument: 2, codes.OutOfRange: 2, codes.NotFound: 3, codes.PermissionDenied: 4, codes.Unauthenticated: 4,
		codes.Unavailable: 5, codes.DeadlineExceeded: 5, codes.AlreadyExists: 6, codes.FailedPrecondition: 6, codes.Aborted: 6,
		codes.ResourceExhausted: 7, codes.Canceled: 130, codes.DataLoss: 1, codes.Internal: 1, codes.Unknown: 1, codes.Unimplemented: 1,
	}
	for code := range codes.Code(17) {
		want, known := tests[code]
		if !known {
			if code != codes.OK {
				t.Errorf("no exit code is expected for %v", code)
			}
			continue
		}
		if got := ExitCode(fmt.Errorf("around: %w", &client.Error{Code: code})); got != want {
			t.Errorf("%v exits %d, want %d", code, got, want)
		}
	}
	for name, test := range map[string]struct {
		err  error
		want int
	}{
		"decryption failed": {&client.Error{Code: codes.InvalidArgument, Reason: "DECRYPTION_FAILED"}, 1},
		"usage":             {Usagef("no"), 2},
		"settings":          {fmt.Errorf("%w: no", client.ErrSettings), 2},
		"interrupted":       {ErrInterrupted, 130},
		"anything else":     {errors.New("no"), 1},
	} {
		if got := ExitCode(test.err); got != test.want {
			t.Errorf("%s exits %d, want %d", name, got, test.want)
		}
	}
}

func TestExitCodesAreDistinct(t *testing.T) {
	seen, statuses := map[int]bool{}, map[codes.Code]bool{}
	for _, row := range ExitCodes() {
		if seen[row.Code] || row.Meaning == "" {
			t.Errorf("row %d is there twice or says nothing", row.Code)
		}
		seen[row.Code] = true
		for _, s := range row.statuses {
			if statuses[s] {
				t.Errorf("%v has two exit codes", s)
			}
			statuses[s] = true
		}
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "0d": 0, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "65535d": 65535 * 24 * time.Hour} {
		var s Span
		if err := s.Set(text); err != nil || s.Duration != want || s.Proto().AsDuration() != want {
			t.Errorf("%q: %v, %v", text, s.Duration, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1.5d", "65536d", "-1h", "30", "soon", "1d12h"} {
		if err := new(Span).Set(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
	if new(Span).Proto() != nil {
		t.Error("a duration that was not given became one")
	}
}

func TestPairs(t *testing.T) {
	var p Pairs
	for _, text := range []string{"a=1", "b=", "c=x=y,z"} {
		if err := p.Set(text); err != nil {
			t.Fatal(err)
		}
	}
	if want := (Pairs{"a": "1", "b": "", "c": "x=y,z"}); !maps.Equal(p, want) {
		t.Fatalf("got %v", p)
	}
	for _, text := range []string{"", "a", "=1", "a=2"} {
		if err := p.Set(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestKeyName(t *testing.T) {
	app := func(flag, environment string) *App {
		return &App{Namespace: flag, Getenv: func(string) string { return environment }}
	}
	tests := []struct{ flag, environment, text, namespace, key string }{
		{"", "", "ns/key", "ns", "key"},
		{"flag", "env", "ns/key", "ns", "key"},
		{"flag", "env", "key", "flag", "key"},
		{"", "env", "key", "env", "key"},
		{"", "", "ns/id:0123456789abcdef", "ns", "id:0123456789abcdef"},
	}
	for _, test := range tests {
		namespace, key, err := app(test.flag, test.environment).KeyName(test.text)
		if err != nil || namespace != test.namespace || key != test.key {
			t.Errorf("%+v: %q, %q, %v", test, namespace, key, err)
		}
	}
	for _, text := range []string{"", "key", "/key", "ns/", "/", "a/b/c"} {
		if _, _, err := app("", "").KeyName(text); ExitCode(err) != ExitUsage {
			t.Errorf("%q: %v", text, err)
		}
	}
}
