package manage

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func TestPrintEntry(t *testing.T) {
	for line, want := range map[string]string{
		`{"v":1,"seq":4,"time":"2026-11-23T12:00:00.5Z","request_id":"r1","principal":"Token::\"app\"","action":"Encrypt","namespace":"n","key":"k","version":3,"decision":"allow","outcome":"OK","latency_us":9}`: `4  2026-11-23T12:00:00Z  OK  Encrypt  n/k v3  Token::"app"  r1` + "\n",
		`{"v":1,"seq":4,"time":"2026-11-23T12:00:00Z","phase":"intent","action":"CreateNamespace","namespace":"n"}`:                                                                                                "4  2026-11-23T12:00:00Z  intent  CreateNamespace  n  -  -\n",
		`{"v":1,"seq":4,"time":"2026-11-23T12:00:00Z","action":"Decrypt","outcome":"PERMISSION_DENIED","reason":"POLICY_DENIED"}`:                                                                                  "4  2026-11-23T12:00:00Z  PERMISSION_DENIED  Decrypt  -  -  -  POLICY_DENIED\n",
		`{"v":1,"seq":4,"time":"2026-11-23T12:00:00Z","action":"A\u001b[2J","principal":"p\nq","outcome":"OK"}`:                                                                                                    `4  2026-11-23T12:00:00Z  OK  "A\x1b[2J"  -  "p\nq"  -` + "\n",
		`not JSON`: "not JSON\n",
	} {
		var out bytes.Buffer
		a := app{&command.App{Out: &out}}
		if err := a.printEntry(&keywrightv1.AuditEntry{Sequence: 4, Line: line}); err != nil || out.String() != want {
			t.Errorf("%s\nwas printed as %q, %v; want %q", line, out.String(), err, want)
		}
	}
}

func TestMoment(t *testing.T) {
	at, err := moment("since", "2026-01-31T12:00:00+01:00")
	if err != nil || !at.AsTime().Equal(time.Date(2026, 1, 31, 11, 0, 0, 0, time.UTC)) {
		t.Errorf("got %v, %v", at, err)
	}
	at, err = moment("since", "2d")
	if ago := time.Since(at.AsTime()); err != nil || ago < 48*time.Hour || ago > 49*time.Hour {
		t.Errorf("2d was %v ago, %v", ago, err)
	}
	if at, err := moment("since", ""); at != nil || err != nil {
		t.Errorf("nothing gave %v, %v", at, err)
	}
	for _, text := range []string{"yesterday", "2026-01-31", "-1h", "31.1.2026"} {
		if _, err := moment("since", text); !isUsage(err) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func isUsage(err error) bool {
	_, ok := errors.AsType[*command.UsageError](err)
	return ok
}
