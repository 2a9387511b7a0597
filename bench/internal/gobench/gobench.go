// Package gobench runs benchmarks where they live, beside their packages, and
// reads what they print: internal packages too can so be measured without letting
// anybody else import them.
//
// Each run is a process of its own, which has ended when Run returns. A Binary
// keeps no state and may be used by many goroutines, which then disturb each other.
package gobench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// stopTime is how long a benchmark has to end when its context does.
const stopTime = 10 * time.Second

// Binary is a package's test binary.
type Binary struct{ path, pkg string }

// Build makes the test binary of the package in directory pkg, relative to the
// module's directory, which must be the working one. The file lies in dir.
func Build(ctx context.Context, dir, pkg string) (*Binary, error) {
	b := &Binary{filepath.Join(dir, strings.ReplaceAll(pkg, "/", "-")+".test"), pkg}
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", b.path, "./"+pkg).CombinedOutput() //nolint:gosec // both are the caller's folders
	if err != nil {
		return nil, fmt.Errorf("build the benchmarks of %s (run this in the module's directory): %w\n%s", pkg, err, out)
	}
	return b, nil
}

// Run says which benchmark to run, and how.
type Run struct {
	Name string        // without "Benchmark", with its sub-benchmark: Append/hot
	Time time.Duration // how long, at least one iteration
	CPUs int           // GOMAXPROCS; default as it is here
	Env  []string      // KEY=value, beside this process's own
}

// Result is what a benchmark printed: each metric by its unit, such as "ns/op".
type Result map[string]float64

// Run runs one benchmark. An error holds what the benchmark printed.
func (b *Binary) Run(ctx context.Context, r Run) (Result, error) {
	if r.CPUs == 0 {
		r.CPUs = runtime.GOMAXPROCS(0)
	}
	cmd := exec.CommandContext(ctx, b.path, "-test.run=^$", "-test.bench="+pattern(r.Name), //nolint:gosec // it was built by Build
		"-test.benchtime="+r.Time.String(), "-test.cpu="+strconv.Itoa(r.CPUs))
	cmd.Dir, cmd.Env, cmd.WaitDelay = b.pkg, append(os.Environ(), r.Env...), stopTime
	var printed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, &printed
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("benchmark %s of %s: %w\n%s", r.Name, b.pkg, err, printed.String())
	}
	result, err := parse(printed.String(), printedName(r))
	if err != nil {
		return nil, fmt.Errorf("benchmark %s of %s: %w\n%s", r.Name, b.pkg, err, printed.String())
	}
	return result, nil
}

// pattern is the regular expression, in parts between slashes, of one name.
func pattern(name string) string {
	parts := strings.Split("Benchmark"+name, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

func printedName(r Run) string {
	if r.CPUs == 1 {
		return "Benchmark" + r.Name
	}
	return fmt.Sprintf("Benchmark%s-%d", r.Name, r.CPUs)
}

// parse finds the line of the benchmark called name: that, the number of
// iterations, and pairs of a value and a unit, all between white space
// (golang.org/design/14313-benchmark-format).
func parse(text, name string) (Result, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || len(fields)%2 != 0 || fields[0] != name {
			continue
		}
		result := Result{}
		for i := 2; i < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q is no value of %s: %w", fields[i], fields[i+1], err)
			}
			result[fields[i+1]] = value
		}
		return result, nil
	}
	return nil, fmt.Errorf("it printed no result of %s", name)
}
