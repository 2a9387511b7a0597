package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const report = `[
 {"name": "gRPC Encrypt 32 B", "value": 28000, "unit": "ops/s", "goal": 0.9},
 {"name": "Encrypt with 100 versions of the key", "value": 1.01, "unit": "of one", "goal": 0.95},
 {"name": "Encrypt with 1000 versions of the key", "value": 0.99, "unit": "of one", "goal": 0.95},
 {"name": "start with 100 keys", "value": 0.02, "unit": "s", "goal": 1},
 {"name": "start with 1000 keys", "value": 0.03, "unit": "s", "goal": 1},
 {"name": "Encrypt of 16 bytes", "value": 2.1, "unit": "MiB/s", "floor": 2.5, "goal": null},
 {"name": "Encrypt of 1000 bytes", "value": 90, "unit": "MiB/s", "floor": 100, "goal": null},
 {"name": "Encrypt with 100 policies", "value": 0.99, "unit": "of one", "goal": 0.95}
]`

func TestCurvesAreDrawn(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "report.json"), []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(folder, &out); err != nil {
		t.Fatal(err)
	}
	drawn, err := filepath.Glob(filepath.Join(folder, "*.svg"))
	if err != nil || len(drawn) != 3 || strings.Count(out.String(), "\n") != 3 {
		t.Fatalf("drew %q, %v; want the versions, the start and the sizes, and no curve of one point", drawn, err)
	}
	beside, err := os.ReadFile(filepath.Join(folder, "Encrypt-bytes.svg"))
	if err != nil || !strings.Contains(string(beside), "floor") {
		t.Errorf("the sizes' curve lacks its floor, %v", err)
	}
	for _, path := range drawn {
		wellFormed(t, path)
	}
}

func wellFormed(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	elements := 0
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if _, ok := token.(xml.StartElement); ok {
			elements++
		}
	}
	if elements < 20 || !strings.Contains(string(text), "1000") {
		t.Errorf("%s: %d elements, or no size at the axis", path, elements)
	}
}

func TestNoReport(t *testing.T) {
	if err := run(t.TempDir(), io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
