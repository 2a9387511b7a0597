package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright/bench/internal/gobench"
	"github.com/keywright/keywright/bench/internal/stat"
)

// errRegression means that something is worse than the baseline.
var errRegression = errors.New("worse than the baseline")

// guarded is a benchmark of the hot path, in the package's folder. Its allocations are
// compared and, where it reports one, its ratio to a yardstick (package paired). What
// waits for the disk has none, nor what has two speeds by where the system happens to
// put it in memory.
type guarded struct{ pkg, name string }

func (g guarded) String() string { return g.pkg + " " + g.name }

// guardedBenchmarks are what an Encrypt is made of, and an Encrypt.
func guardedBenchmarks() []guarded {
	return []guarded{
		{keyringPackage, "Guard/seal/AES_256_GCM"},
		{keyringPackage, "Guard/open/AES_256_GCM"},
		{keyringPackage, "Guard/seal/XAES_256_GCM"},
		{keyringPackage, "Guard/open/XAES_256_GCM"},
		{policyPackage, "Decide/cached/policies=100"},
		{identityPackage, "Guard"},
		{flatprotoPackage, "Unmarshal/alone/flat"},
		{flatprotoPackage, "Unmarshal/batch/flat"},
		{flatprotoPackage, "Append/batch/flat"},
		{auditPackage, "Encode"},
		{kmsPackage, "Encrypt/AES_256_GCM/32"},
		{kmsPackage, "Encrypt/XAES_256_GCM/32"},
	}
}

// How the guard tells a regression from noise: a ratio is the median of hundreds of
// turns that alternate with the yardstick's, a judgement is the median of some runs,
// each a process of its own, and what still looks worse is judged again; only what is
// worse every time is.
const (
	guardTime   = 20 * time.Millisecond
	guardRounds = 3  // runs of one judgement
	guardTries  = 4  // judgements, while it looks worse
	worstRatio  = 10 // a ratio may be worse by a part in so many
)

// baseline is what was measured when it was last written (bench/baseline.json).
type baseline struct {
	// Processor is that of the machine. On another one ratios are told and not judged:
	// they depend on it by more than a tenth.
	Processor string             `json:"processor"`
	Benches   map[string]measure `json:"benchmarks"`
}

// measure is what is known of a benchmark.
type measure struct {
	Allocs float64 `json:"allocs"`          // per operation
	Ratio  float64 `json:"ratio,omitempty"` // of its time to a yardstick's; 0: none
}

func runGuard(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var update bool
	var path string
	flags := flag.NewFlagSet("bench guard", flag.ContinueOnError)
	flags.BoolVar(&update, "update", false, "write the baseline anew")
	flags.StringVar(&path, "baseline", filepath.Join("bench", "baseline.json"), "file of the baseline")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "keywright-guard-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	g := &guard{bench: bench{dir: dir, binaries: map[string]*gobench.Binary{}}, processor: processor(), out: stdout}
	if update {
		return g.update(ctx, path)
	}
	return g.judgeAll(ctx, path)
}

type guard struct {
	bench
	processor string
	out       io.Writer
	// run measures one benchmark, once.
	run func(ctx context.Context, what guarded) (gobench.Result, error)
}

// update measures everything as often as the guard ever does, and keeps the worst
// ratio of the judgements: what the guard calls worse is then worse than that.
func (g *guard) update(ctx context.Context, path string) error {
	now := baseline{Processor: g.processor, Benches: map[string]measure{}}
	for _, what := range guardedBenchmarks() {
		worst := measure{}
		for range guardTries {
			m, err := g.judge(ctx, what)
			if err != nil {
				return err
			}
			worst = measure{max(worst.Allocs, m.Allocs), max(worst.Ratio, m.Ratio)}
		}
		now.Benches[what.String()] = worst
		fmt.Fprintf(g.out, "%-45s %s\n", what, worst)
	}
	text, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

func (m measure) String() string {
	text := fmt.Sprintf("%g allocs/op", m.Allocs)
	if m.Ratio > 0 {
		text += fmt.Sprintf(", ratio %.3f", m.Ratio)
	}
	return text
}

// judgeAll compares everything with the baseline.
func (g *guard) judgeAll(ctx context.Context, path string) error {
	was, err := readBaseline(path)
	if err != nil {
		return err
	}
	sameMachine := was.Processor == g.processor
	if !sameMachine {
		fmt.Fprintf(g.out, "the baseline is of %q, this is %q: ratios are told, allocations judged\n", was.Processor, g.processor)
	}
	var worse []string
	for _, what := range guardedBenchmarks() {
		before := was.Benches[what.String()]
		now, complaint, err := g.compare(ctx, what, before, sameMachine)
		if err != nil {
			return err
		}
		fmt.Fprintf(g.out, "%-45s %s; was %s %s\n", what, now, before, complaint)
		if complaint != "" {
			worse = append(worse, what.String())
		}
	}
	if len(worse) > 0 {
		return fmt.Errorf("%w: %s (if that is meant: go run ./bench guard -update)", errRegression, strings.Join(worse, ", "))
	}
	return nil
}

// compare measures until it is not worse, or has had its tries.
func (g *guard) compare(ctx context.Context, what guarded, before measure, ratios bool) (best measure, complaint string, err error) {
	best = measure{math.Inf(1), math.Inf(1)}
	for range guardTries {
		now, err := g.judge(ctx, what)
		if err != nil {
			return best, "", err
		}
		best = measure{min(best.Allocs, now.Allocs), min(best.Ratio, now.Ratio)}
		if complaint = before.worse(best, ratios); complaint == "" {
			break
		}
	}
	return best, complaint, nil
}

// worse says what is worse now, "" if nothing is.
func (m measure) worse(now measure, ratios bool) string {
	switch {
	case now.Allocs > m.Allocs:
		return "ALLOCATES MORE"
	case ratios && m.Ratio > 0 && now.Ratio > m.Ratio*(1+1.0/worstRatio):
		return "IS SLOWER"
	}
	return ""
}

// judge runs a benchmark some times. Allocations are whole: a fraction is of what the
// benchmark itself began with.
func (g *guard) judge(ctx context.Context, what guarded) (measure, error) {
	allocs, ratios := make([]float64, guardRounds), make([]float64, guardRounds)
	for i := range guardRounds {
		result, err := g.once(ctx, what)
		if err != nil {
			return measure{}, err
		}
		allocs[i], ratios[i] = math.Floor(result["allocs/op"]), result["of-bare"]
	}
	return measure{slices.Min(allocs), stat.Median(ratios)}, nil
}

func (g *guard) once(ctx context.Context, what guarded) (gobench.Result, error) {
	if g.run != nil {
		return g.run(ctx, what)
	}
	binary, err := g.binary(ctx, what.pkg)
	if err != nil {
		return nil, err
	}
	return binary.Run(ctx, gobench.Run{Name: what.name, Time: guardTime, CPUs: 1})
}

// readBaseline reads a baseline, which must be of the benchmarks that there are.
func readBaseline(path string) (was baseline, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return was, err
	}
	if err := json.Unmarshal(text, &was); err != nil {
		return was, fmt.Errorf("%s: %w", path, err)
	}
	var want []string
	for _, what := range guardedBenchmarks() {
		want = append(want, what.String())
	}
	slices.Sort(want)
	if have := slices.Sorted(maps.Keys(was.Benches)); !slices.Equal(have, want) {
		return was, fmt.Errorf("%s is of %q, and the benchmarks are %q: write it anew with -update", path, have, want)
	}
	return was, nil
}

// processor says which one the machine has, "" where there is no /proc.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	var parts []string
	for _, name := range []string{"model name", "cpu family", "model", "stepping", "cache size"} {
		if m := regexp.MustCompile(`(?m)^` + name + `\s*: (.*)$`).FindSubmatch(text); m != nil {
			parts = append(parts, string(m[1]))
		}
	}
	return strings.Join(parts, ", ")
}
