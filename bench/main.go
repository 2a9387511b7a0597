// Command bench measures Keywright against floors on the same machine, in the same
// run. It is no part of the product.
//
//	go run ./bench          first figures, as ratios to their floors
//	go run ./bench load     loads any server, also of Vault or OpenBao, and tells rate and latency
//	go run ./bench guard    fails if the hot path is worse than bench/baseline.json
//
// The server under test is a keywrightd process of its own, with the shipped
// configuration on a SoftHSM2 token; so are the floors' servers. What was promised
// as such, in place of a ratio, is measured by the benchmarks beside the packages.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/keywright/keywright/bench/internal/floor"
)

// Exit codes.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

// errUsage is wrapped by errors about the command line.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdin, stdout, stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "bench: interrupted")
	default:
		fmt.Fprintf(stderr, "bench: %v\n", err)
	}
	return exitFailure
}

func dispatch(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	switch {
	case len(args) > 0 && args[0] == "load":
		return runLoad(ctx, args[1:], stdout, stderr)
	case len(args) > 0 && args[0] == "guard":
		return runGuard(ctx, args[1:], stdout, stderr)
	case len(args) == 3 && args[0] == floor.Command:
		return floor.Serve(args[1], args[2], stdin, stdout)
	case len(args) > 0 && !strings.HasPrefix(args[0], "-"):
		return fmt.Errorf("%w: there is no command %q: give load, guard, or flags alone for the figures", errUsage, args[0])
	default:
		return runFigures(ctx, args, stdout, stderr)
	}
}

// parse reads flags; what is wrong with them is an errUsage in one line.
func parse(flags *flag.FlagSet, args []string, stderr io.Writer) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stderr)
		fmt.Fprintf(stderr, "Usage of %s:\n", flags.Name())
		flags.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w: %w; -help shows the flags", errUsage, err)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: %q is no flag; -help shows the flags", errUsage, flags.Arg(0))
	}
	return nil
}
