package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/cmd/keywrightd/internal/host"
	"github.com/keywright/keywright/hsm"
)

func newHSMCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hsm",
		Short: "Look at PKCS#11 modules and tokens",
		Args:  cobra.NoArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(newProbeCommand(a), newCompareCommand())
	return cmd
}

// probeOptions is what the operator says about the token.
type probeOptions struct {
	hsm          config.HSM
	tokenObjects bool
	quick        bool
	timeout      time.Duration
	json         bool
}

func newProbeCommand(a *app) *cobra.Command {
	o := probeOptions{hsm: config.HSM{PIN: config.PIN{FD: config.NoFD}}}
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Find out by trying what a token really does, and what Keywright would use it for",
		Long: `Find out by trying what a token really does, and what Keywright would use it for.

Keys of every kind are made as session objects, used, checked in software and removed
again. The PIN is tried once. Without --module the token of the configuration is
probed. No server has to be there, and a server that uses the token is not disturbed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return probe(cmd.Context(), a, o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.hsm.Module, "module", "", "the PKCS#11 library")
	f.StringVar(&o.hsm.TokenLabel, "token-label", "", "the token's label")
	f.StringVar(&o.hsm.TokenSerial, "token-serial", "", "the token's serial number, which wins over the label")
	f.StringVar(&o.hsm.PIN.File, "pin-file", "", "a file whose first line is the user's PIN")
	f.StringVar(&o.hsm.PIN.Env, "pin-env", "", "the name of an environment variable that holds it")
	f.IntVar(&o.hsm.PIN.FD, "pin-fd", config.NoFD, "an open file descriptor to read it from")
	f.StringVar(&o.hsm.InitArgs, "init-args", "", "what the module wants in the reserved field of C_Initialize's arguments")
	f.BoolVar(&o.tokenObjects, "token-objects", false, "make keys that the token keeps until they are removed at the end, for tokens that know no session objects")
	f.BoolVar(&o.quick, "quick", false, "try no RSA keys of more than 2048 bits, which some devices make for minutes")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "how long all of it may take")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func probe(ctx context.Context, a *app, o probeOptions, out io.Writer) error {
	if o.hsm.Module == "" {
		c, err := config.Load(a.configPath)
		if err != nil {
			return fmt.Errorf("name the PKCS#11 library with --module, or a configuration with --config: %w", err)
		}
		o.hsm = c.HSM
	} else if err := o.check(); err != nil {
		return err
	}
	if err := checkPIN(o.hsm.PIN); err != nil {
		return &config.Invalid{Problems: []string{fmt.Sprintf("PIN: %v", err)}}
	}
	if err := host.Harden(slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("%w: the self-test took longer than --timeout %v", hsm.ErrUnavailable, o.timeout))
	defer cancel()
	report, err := hsm.SelfTest(ctx, hsm.Config{
		Module:      o.hsm.Module,
		InitArgs:    o.hsm.InitArgs,
		TokenLabel:  o.hsm.TokenLabel,
		TokenSerial: o.hsm.TokenSerial,
		PIN:         pinSource(o.hsm.PIN),
	}, hsm.SelfTestOptions{TokenObjects: o.tokenObjects, Quick: o.quick})
	if err != nil {
		return err
	}
	if o.json {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	return printReport(out, report)
}

// check says which flags are missing or too many.
func (o probeOptions) check() error {
	var problems []string
	if o.hsm.TokenLabel == "" && o.hsm.TokenSerial == "" {
		problems = append(problems, "name the token with --token-label or --token-serial")
	}
	sources := 0
	for _, given := range []bool{o.hsm.PIN.File != "", o.hsm.PIN.Env != "", o.hsm.PIN.FD != config.NoFD} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		problems = append(problems, fmt.Sprintf("%d sources of the PIN are given: want one of --pin-file, --pin-env and --pin-fd", sources))
	}
	if o.timeout <= 0 {
		problems = append(problems, fmt.Sprintf("--timeout is %v: want more than 0", o.timeout))
	}
	if len(problems) > 0 {
		return &config.Invalid{Problems: problems}
	}
	return nil
}

// errReports means that there is nothing to compare.
var errReports = errors.New("name the reports to compare: files that keywrightd hsm probe --json printed")

// errReport means that a file is no report of a probe.
var errReport = errors.New("not a report of keywrightd hsm probe --json")

func newCompareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compare REPORT...",
		Short: "Print the reports of several probes (--json) side by side",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, paths []string) error {
			if len(paths) == 0 {
				return errReports
			}
			var names []string
			var reports []hsm.TestReport
			for _, path := range paths {
				r, err := readReport(path)
				if err != nil {
					return err
				}
				base := filepath.Base(path)
				names = append(names, strings.TrimSuffix(base, filepath.Ext(base)))
				reports = append(reports, r)
			}
			return printComparison(cmd.OutOrStdout(), names, reports)
		},
	}
}

func readReport(path string) (r hsm.TestReport, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil || len(r.Found.Algorithms) == 0 {
		return r, fmt.Errorf("%s: %w", path, errReport)
	}
	return r, nil
}
