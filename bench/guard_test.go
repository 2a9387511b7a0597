package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keywright/keywright/bench/internal/gobench"
)

// scriptedGuard measures what the test says: each benchmark takes twice as long as its
// yardstick and allocates twice, and more as change says.
func scriptedGuard(change func(what guarded, round int) (ratio, allocs float64)) (*guard, *bytes.Buffer) {
	out, rounds := new(bytes.Buffer), map[string]int{}
	return &guard{processor: "one", out: out, run: func(_ context.Context, what guarded) (gobench.Result, error) {
		rounds[what.String()]++
		ratio, allocs := change(what, rounds[what.String()])
		return gobench.Result{"of-bare": 2 + ratio, "allocs/op": 2 + allocs}, nil
	}}, out
}

func unchanged(guarded, int) (float64, float64) { return 0, 0 }

func TestGuardTellsRegressionsFromNoise(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.json")
	first, _ := scriptedGuard(unchanged)
	if err := first.update(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	seal := guardedBenchmarks()[0]
	only := func(ratio, allocs float64) func(guarded, int) (float64, float64) {
		return func(what guarded, _ int) (float64, float64) {
			if what == seal {
				return ratio, allocs
			}
			return 0, 0
		}
	}
	for name, test := range map[string]struct {
		change    func(guarded, int) (float64, float64)
		processor string
		want      string // of the complaint
	}{
		"the same":                  {unchanged, "one", ""},
		"faster":                    {only(-0.5, 0), "one", ""},
		"a twentieth slower":        {only(0.1, 0), "one", ""},
		"a fifth slower":            {only(0.4, 0), "one", "IS SLOWER"},
		"slower on another machine": {only(0.4, 0), "two", ""},
		"one allocation more":       {only(0, 1), "one", "ALLOCATES MORE"},
		"and on another machine":    {only(0, 1), "two", "ALLOCATES MORE"},
		"a part of an allocation":   {only(0, 0.4), "one", ""},
		"slow in one run of each": {func(_ guarded, run int) (float64, float64) {
			return map[bool]float64{true: 3, false: 0}[run%guardRounds == 0], 0
		}, "one", ""},
		"slow for a while": {func(_ guarded, run int) (float64, float64) {
			return map[bool]float64{true: 3, false: 0}[run <= 2*guardRounds], 0
		}, "one", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g, out := scriptedGuard(test.change)
			g.processor = test.processor
			err := g.judgeAll(t.Context(), path)
			if (test.want != "") != errors.Is(err, errRegression) || !strings.Contains(out.String(), test.want) {
				t.Errorf("%v\n%s", err, out)
			}
			if err != nil && (!strings.Contains(err.Error(), seal.String()) || strings.Contains(err.Error(), ",")) {
				t.Errorf("%v; want %s named, and no other", err, seal)
			}
		})
	}
}

func TestGuardWantsABaselineOfWhatThereIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.json")
	g, _ := scriptedGuard(unchanged)
	if err := g.judgeAll(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a baseline: %v", err)
	}
	if err := g.update(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string]measure){
		"one is missing":  func(m map[string]measure) { delete(m, guardedBenchmarks()[1].String()) },
		"one is too many": func(m map[string]measure) { m["kms Gone"] = measure{} },
	} {
		was, err := readBaseline(path)
		if err != nil {
			t.Fatal(err)
		}
		change(was.Benches)
		text, err := json.Marshal(was)
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(t.TempDir(), "other.json")
		if err := os.WriteFile(other, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readBaseline(other); err == nil || !strings.Contains(err.Error(), "-update") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The committed baseline is of what there is, and one benchmark of it can be run.
func TestGuardMeasures(t *testing.T) {
	t.Chdir("..")
	if _, err := readBaseline(filepath.Join("bench", "baseline.json")); err != nil {
		t.Error(err)
	}
	g := &guard{bench: bench{dir: t.TempDir(), binaries: map[string]*gobench.Binary{}}, out: new(bytes.Buffer)}
	m, err := g.judge(t.Context(), guardedBenchmarks()[2])
	if err != nil || m.Ratio <= 0 || m.Allocs != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}
