package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright/bench/internal/load"
)

// defaultMount is where transit is mounted unless somebody says otherwise.
const defaultMount = "transit"

// transitDataKeys are the lengths that transit makes data keys of, in bytes.
var transitDataKeys = []int{16, 32, 64}

// loadOptions are the flags of bench load.
type loadOptions struct {
	target      load.Target
	work        load.Work
	tokenFile   string
	rest        bool
	vault       bool
	streams     int
	connections int
	concurrency int
	rate        float64
	duration    time.Duration
}

func (o *loadOptions) flags() *flag.FlagSet {
	f := flag.NewFlagSet("bench load", flag.ContinueOnError)
	f.StringVar(&o.target.Addr, "addr", "127.0.0.1:7700", "host:port of gRPC, or of HTTP with -rest or -vault")
	f.BoolVar(&o.rest, "rest", false, "call REST in place of gRPC")
	f.BoolVar(&o.vault, "vault", false, "call the transit engine of HashiCorp Vault or OpenBao, over HTTP as -rest does")
	f.BoolVar(&o.target.Plaintext, "plaintext", false, "use no TLS")
	f.StringVar(&o.target.CAFile, "ca-file", "", "PEM of the CA to believe (default: the system's)")
	f.StringVar(&o.target.CertFile, "cert-file", "", "client certificate, PEM")
	f.StringVar(&o.target.KeyFile, "key-file", "", "key of the client certificate, PEM")
	f.StringVar(&o.tokenFile, "token-file", "", "file that holds a token")
	f.StringVar(&o.work.Operation, "op", "encrypt", "one of "+strings.Join(load.Operations(), ", "))
	f.StringVar(&o.work.Namespace, "namespace", "", "namespace of the key; with -vault where transit is mounted (default there: "+defaultMount+")")
	f.StringVar(&o.work.Key, "key", "", "the key")
	f.IntVar(&o.work.Payload, "payload", 32, "bytes of plaintext or message")
	f.IntVar(&o.work.Batch, "batch", 0, "operations in one call; 0 sends them alone")
	f.IntVar(&o.connections, "connections", 2, "gRPC connections; -rest and -vault have one for each caller")
	f.IntVar(&o.concurrency, "concurrency", 32, "callers, evenly on the connections")
	f.IntVar(&o.streams, "streams", 0, "send the operations through so many Pipeline streams, with -concurrency of them under way on all; 0: a call for each")
	f.Float64Var(&o.rate, "rate", 0, "calls a second to begin, answered or not; 0: each caller waits for its answer")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long to call")
	return f
}

func (o *loadOptions) check() error {
	for _, test := range []struct {
		wrong bool
		text  string
	}{
		{o.work.Namespace == "", "-namespace is missing"},
		{o.work.Key == "", "-key is missing"},
		{o.work.Payload < 1, "-payload: give at least 1 byte"},
		{o.work.Batch < 0 || o.work.Batch > load.MaxBatch, fmt.Sprintf("-batch: give 0 to %d", load.MaxBatch)},
		{o.connections < 1, "-connections: give at least 1"},
		{o.concurrency < 1, "-concurrency: give at least 1"},
		{o.rate < 0, "-rate: give 0 or more"},
		{o.streams < 0 || o.streams > o.concurrency, "-streams: give 0 to -concurrency"},
		{o.rest && o.vault, "-rest and -vault: give one of them"},
		{o.streams > 0 && (o.rest || o.vault || o.rate > 0 || o.work.Batch > 0), "-streams goes without -rest, -vault, -rate and -batch"},
		{o.vault && o.work.Operation == "datakey" && !slices.Contains(transitDataKeys, o.work.Payload), "-payload: transit makes data keys of 16, 32 or 64 bytes"},
		{o.vault && o.work.Operation == "datakey" && o.work.Batch > 0, "-batch: transit makes data keys one by one"},
		{o.duration <= 0, "-duration: give more than 0"},
		{(o.target.CertFile == "") != (o.target.KeyFile == ""), "-cert-file and -key-file go together"},
	} {
		if test.wrong {
			return fmt.Errorf("%w: %s", errUsage, test.text)
		}
	}
	return nil
}

func (o *loadOptions) readToken() error {
	if o.tokenFile == "" {
		return nil
	}
	text, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return fmt.Errorf("the token file: %w", err)
	}
	o.target.Token = load.Token(strings.TrimSpace(string(text)))
	if o.target.Token == "" || strings.ContainsFunc(string(o.target.Token), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("the token file %s does not hold one token", o.tokenFile)
	}
	return nil
}

func (o *loadOptions) pool(ctx context.Context) (*load.Pool, error) {
	if o.vault {
		return load.Vault(ctx, o.target, o.work, o.concurrency)
	}
	if o.rest {
		return load.REST(ctx, o.target, o.work, o.concurrency)
	}
	if o.streams > 0 {
		return load.Pipeline(ctx, o.target, o.work, min(o.connections, o.streams), o.streams, o.concurrency)
	}
	return load.GRPC(ctx, o.target, o.work, min(o.connections, o.concurrency), o.concurrency)
}

// runLoad loads a server. Refusals for want of room are counted, since they are
// how a server behaves under load; any other error ends it.
func runLoad(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var o loadOptions
	if err := parse(o.flags(), args, stderr); err != nil {
		return err
	}
	if o.vault {
		o.work.Namespace = cmp.Or(o.work.Namespace, defaultMount)
	}
	if err := o.check(); err != nil {
		return err
	}
	if err := o.readToken(); err != nil {
		return err
	}
	defer func() { err = o.advise(err) }()
	pool, err := o.pool(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	result, err := load.Run(ctx, pool.Callers, load.Plan{Duration: o.duration, Rate: o.rate,
		Tolerate: refused})
	o.print(stdout, &result, !pool.Windowed)
	return err
}

// advise adds to an error of the token which flag is to be looked at.
func (o *loadOptions) advise(err error) error {
	switch {
	case !errors.Is(err, load.ErrToken):
		return err
	case o.tokenFile == "":
		return fmt.Errorf("%w; none was sent: give one with -token-file", err)
	}
	return fmt.Errorf("%w; it is that of -token-file %s", err, o.tokenFile)
}

func (o *loadOptions) print(w io.Writer, r *load.Result, timed bool) {
	fmt.Fprintf(w, "%s: %d calls answered in %.1f s, %.0f/s", o.work.Operation, r.Latency.Count(), r.Elapsed.Seconds(), r.Rate())
	if o.work.Batch > 0 {
		fmt.Fprintf(w, " (%.0f items/s)", r.Rate()*float64(o.work.Batch))
	}
	fmt.Fprintf(w, ", %d refused for want of room\n", r.Refused)
	if !timed {
		return
	}
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
		fmt.Fprintf(w, "  p%-5g %s\n", q*100, r.Latency.Quantile(q).Round(time.Microsecond))
	}
}

// refused tells whether a call was refused for want of room, as a server under load may.
func refused(err error) bool { return errors.Is(err, load.ErrOverload) }
