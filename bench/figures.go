package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/keywright/keywright/bench/internal/floor"
	"github.com/keywright/keywright/bench/internal/gobench"
	"github.com/keywright/keywright/bench/internal/report"
	"github.com/keywright/keywright/bench/internal/rig"
	"github.com/keywright/keywright/bench/internal/stat"
)

// Many short rounds tell more than few long ones: what else the machine does then
// falls on a floor and its subject alike, or is left out by the median.
const (
	defaultRounds   = 7
	defaultDuration = 500 * time.Millisecond
	defaultEntries  = 10_000_000
	defaultGrowth   = 10_000
)

// figureOptions are the flags of bench.
type figureOptions struct {
	duration time.Duration
	rounds   int
	run      string
	out      string
	binary   string
	peer     string // URL, "" is none
	entries  int    // of the log
	growth   int    // of keys, versions and policies, at most
}

func (o *figureOptions) flags() *flag.FlagSet {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.DurationVar(&o.duration, "duration", defaultDuration, "length of one measurement")
	f.IntVar(&o.rounds, "rounds", defaultRounds, "measurements of each figure and each floor; fewer than 5 only for a quick look")
	f.StringVar(&o.run, "run", "", "measure only the figures whose name matches this regular expression")
	f.StringVar(&o.out, "out", filepath.Join("bench", "out"), "folder of report.json")
	f.IntVar(&o.entries, "entries", defaultEntries, "entries of the audit log to verify and to search; 10 million take about 5 GB of $TMPDIR")
	f.IntVar(&o.growth, "growth", defaultGrowth, "keys, versions and policies to make at most for the curves of growth, by powers of ten, up to 1000000, which take long to make")
	f.StringVar(&o.peer, "peer", "", "URL of another transit server (Vault, OpenBao) to measure beside this one; its token in $VAULT_TOKEN, its engine at transit, with a key "+peerKey)
	f.StringVar(&o.binary, "keywrightd", "", "the server to measure (default: built from this module)")
	return f
}

func (o *figureOptions) filter() (*regexp.Regexp, error) {
	if o.rounds < 1 || o.duration <= 0 || o.entries < 1 || o.growth < 0 {
		return nil, fmt.Errorf("%w: -rounds, -duration and -entries must be more than 0, -growth not less", errUsage)
	}
	if _, _, err := o.peerTarget(); err != nil {
		return nil, err
	}
	wanted, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("%w: -run: %w", errUsage, err)
	}
	return wanted, nil
}

func runFigures(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var o figureOptions
	if err := parse(o.flags(), args, stderr); err != nil {
		return err
	}
	wanted, err := o.filter()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "keywright-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintln(stderr, "bench: starting keywrightd and the floors")
	b, err := newBench(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	figures, err := b.measureAll(ctx, wanted, stderr)
	if err != nil {
		return err
	}
	path := filepath.Join(o.out, "report.json")
	return errors.Join(report.WriteTable(stdout, figures), report.WriteJSON(path, figures))
}

// bench is everything that is measured.
type bench struct {
	figureOptions
	dir      string
	rig      *rig.Rig
	floor    *floor.Process
	binaries map[string]*gobench.Binary // by package
	results  map[string]gobench.Result  // of benchmarks that run once, by name
}

func newBench(ctx context.Context, dir string, o figureOptions) (*bench, error) {
	r, err := rig.New(ctx, dir, o.binary)
	if err != nil {
		return nil, err
	}
	f, err := floor.Start(ctx, r.CertFile(), r.KeyFile())
	if err != nil {
		return nil, err
	}
	return &bench{o, dir, r, f, map[string]*gobench.Binary{}, map[string]gobench.Result{}}, nil
}

func (b *bench) close() error { return errors.Join(b.rig.Close(), b.floor.Close()) }

// sample is one measurement.
type sample struct {
	value   float64 // in the figure's unit
	cpu     float64 // processor time, µs for each of what the unit counts; 0: not known
	latency stat.Histogram
}

// probe measures one thing for a while.
type probe interface {
	measure(ctx context.Context, d time.Duration) (sample, error)
	close() error
}

// subject is a figure to be measured: a probe and the floors that it stands on.
type subject struct {
	name    string
	unit    string
	goal    report.Goal
	cpu     report.Goal // of processor time against the floor's; none: not told
	cpuName string      // whose processor time it is
	probe   maker
	// floors are measured beside the probe in each round; predict makes one value
	// of theirs. Without floors the figure is for orientation.
	floors  []maker
	predict func(values []float64) float64
	most    int // rounds, where one takes long; 0: as many as are asked for
}

type maker = func(context.Context) (probe, error)

func (b *bench) measureAll(ctx context.Context, wanted *regexp.Regexp, progress io.Writer) ([]*report.Figure, error) {
	var figures []*report.Figure
	for _, s := range b.subjects() {
		if !wanted.MatchString(s.name) {
			continue
		}
		fmt.Fprintf(progress, "bench: %s\n", s.name)
		measured, err := b.measure(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		figures = append(figures, measured...)
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("%w: no figure matches -run %q", errUsage, b.run)
	}
	return figures, nil
}

// measure runs the rounds of one subject. Every other round goes the other way
// round, so that neither side is always the first.
func (b *bench) measure(ctx context.Context, s subject) (figures []*report.Figure, err error) {
	probes, err := open(ctx, append(s.floors[:len(s.floors):len(s.floors)], s.probe))
	defer func() { err = errors.Join(err, closeAll(probes)) }()
	if err != nil {
		return nil, err
	}
	rate := &report.Figure{Name: s.name, Unit: s.unit, Goal: s.goal}
	cpu := &report.Figure{Name: s.name + ", " + s.cpuName, Unit: "µs/op", Goal: s.cpu}
	if s.most == 0 { // warm up, unless that takes as long as a round
		if _, err := each(ctx, probes, b.duration/4, false); err != nil {
			return nil, err
		}
	}
	for i := range s.rounds(b.rounds) {
		samples, err := each(ctx, probes, b.duration, i%2 == 1)
		if err != nil {
			return nil, err
		}
		s.add(rate, cpu, samples)
	}
	if s.cpu.Ratio > 0 && cpu.Value() > 0 {
		return []*report.Figure{rate, cpu}, nil
	}
	return []*report.Figure{rate}, nil
}

func (s *subject) rounds(asked int) int {
	if s.most > 0 {
		return min(s.most, asked)
	}
	return asked
}

// add puts a round's samples, the probe's last, into the figures.
func (s *subject) add(rate, cpu *report.Figure, samples []sample) {
	own := &samples[len(samples)-1]
	values := make([]float64, len(s.floors))
	for i := range values {
		values[i] = samples[i].value
	}
	round := report.Round{Value: own.value}
	if s.predict != nil {
		round.Floor = s.predict(values)
	}
	rate.Rounds = append(rate.Rounds, round)
	rate.Latency.Add(&own.latency)
	cpu.Rounds = append(cpu.Rounds, report.Round{Value: own.cpu, Floor: samples[0].cpu})
}

func open(ctx context.Context, makers []maker) (probes []probe, err error) {
	for _, newProbe := range makers {
		p, err := newProbe(ctx)
		if err != nil {
			return probes, err
		}
		probes = append(probes, p)
	}
	return probes, nil
}

func closeAll(probes []probe) (err error) {
	for _, p := range probes {
		err = errors.Join(err, p.close())
	}
	return err
}

// each measures all probes, one after another, and returns their samples in order.
func each(ctx context.Context, probes []probe, d time.Duration, backwards bool) ([]sample, error) {
	samples := make([]sample, len(probes))
	for i := range probes {
		if backwards {
			i = len(probes) - 1 - i
		}
		var err error
		if samples[i], err = probes[i].measure(ctx, d); err != nil {
			return nil, err
		}
	}
	return samples, nil
}
