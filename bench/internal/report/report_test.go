package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func figures() []*Figure {
	holds := &Figure{Name: "unary × 32 B", Unit: "ops/s", Goal: Goal{Ratio: 0.9},
		// The machine was slow in the second round: medians of value and floor alone
		// would mix rounds.
		Rounds: []Round{{90, 100}, {9, 10}, {190, 200}}}
	holds.Latency.Record(time.Millisecond)
	return []*Figure{
		holds,
		{Name: "CPU", Unit: "µs/op", Goal: Goal{Ratio: 1.25, AtMost: true}, Rounds: []Round{{13, 10}}},
		{Name: "fsync", Unit: "ops/s", Rounds: []Round{{5000, 0}}},
	}
}

func TestFiguresAreMediansOfRounds(t *testing.T) {
	f := figures()
	if f[0].Value() != 90 || f[0].Floor() != 100 || f[0].Ratio() != 0.9 || !f[0].Holds() {
		t.Errorf("value %v, floor %v, ratio %v, holds %v", f[0].Value(), f[0].Floor(), f[0].Ratio(), f[0].Holds())
	}
	if f[1].Holds() {
		t.Error("a cost above its ceiling holds")
	}
}

func TestWriteJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out", "report.json")
	if err := WriteJSON(path, figures()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"name": "unary × 32 B", "value": 90.0, "unit": "ops/s", "floor": 100.0, "ratio": 0.9, "goal": 0.9, "holds": true, "rounds": 3.0},
		{"name": "CPU", "value": 13.0, "unit": "µs/op", "floor": 10.0, "ratio": 1.3, "goal": 1.25, "holds": false, "rounds": 1.0},
		{"name": "fsync", "value": 5000.0, "unit": "ops/s", "floor": nil, "ratio": nil, "goal": nil, "holds": nil, "rounds": 1.0},
	}
	for i := range want {
		for name, value := range want[i] {
			if got, ok := rows[i][name]; !ok || got != value {
				t.Errorf("%s: %s is %v, want %v", rows[i]["name"], name, got, value)
			}
		}
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	if err := WriteTable(&b, figures()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for i, words := range [][]string{
		{"name", "value", "floor", "p99"},
		{"unary × 32 B", "90.0", "100", "0.90", "≥ 0.90 holds", "999µs"},
		{"CPU", "1.30", "≤ 1.25 missed"},
		{"fsync", "5000", " - "},
	} {
		for _, word := range words {
			if !strings.Contains(lines[i], word) {
				t.Errorf("%q lacks %q", lines[i], word)
			}
		}
	}
}
