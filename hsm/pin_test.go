package hsm_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

func TestPINSources(t *testing.T) {
	token := softhsmtest.Token(t)
	pin := softhsmtest.PIN(t, token)
	t.Setenv("KEYWRIGHT_TEST_PIN", pin)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString(pin + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sources := map[string]hsm.PINSource{
		"file":       hsm.PINFromFile(token.PINFile),
		"env":        hsm.PINFromEnv("KEYWRIGHT_TEST_PIN"),
		"descriptor": hsm.PINFromFD(dup(t, r)),
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			config := configFor(token)
			config.PIN = source
			for range 2 { // each login asks again
				d, err := hsm.Open(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestPINSourceRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	for name, content := range map[string]string{
		"empty": "", "only a line end": "\r\n", "two lines": "secret-a\nsecret-b\n",
		"too long": strings.Repeat("s", 256), "NUL": "secret\x00",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := hsm.PINFromFile(path)()
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error = %v", name, err)
		}
	}
	if _, err := hsm.PINFromEnv("KEYWRIGHT_TEST_UNSET")(); err == nil {
		t.Error("an unset variable gave a PIN")
	}
	if _, err := hsm.PINFromFD(1 << 20)(); err == nil {
		t.Error("a closed descriptor gave a PIN")
	}
}

func TestPINNeverPrints(t *testing.T) {
	pin := hsm.NewPIN([]byte("hunter2"))
	holder := struct{ PIN hsm.PIN }{pin}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb, pin, holder)
	}
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	slog.New(slog.NewTextHandler(&out, nil)).Info("login", "pin", pin, "holder", holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("login", "pin", pin, "holder", holder)
	for _, leak := range []string{"hunter2", "68756e74", "104 117", "104,117"} {
		if strings.Contains(out.String(), leak) {
			t.Fatalf("output shows the PIN as %q", leak)
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Fatalf("output: %s", &out)
	}
}

func TestKeyIDText(t *testing.T) {
	id := hsm.KeyID{0xab, 15: 0x01}
	text, err := id.MarshalText()
	if err != nil || string(text) != "ab000000000000000000000000000001" || id.String() != string(text) {
		t.Fatalf("text = %s, %v", text, err)
	}
	var back hsm.KeyID
	if err := back.UnmarshalText(text); err != nil || back != id {
		t.Fatalf("back = %s, %v", back, err)
	}
	for _, bad := range []string{"", "ab", strings.Repeat("g", 32), strings.Repeat("0", 34)} {
		if _, err := hsm.ParseKeyID(bad); !errors.Is(err, hsm.ErrInvalidArgument) {
			t.Errorf("%q: error = %v", bad, err)
		}
	}
}
