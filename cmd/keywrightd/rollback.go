package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/kms"
)

// errDiffers says that the store is not what the audit log says it should be.
var errDiffers = errors.New("the store is not what the audit log says was written")

func newVerifyStoreCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify-store",
		Short: "Compare each record of the store with what the audit log says was written",
		Long: `Compare each record of the store with what the audit log says was written, while
the server is stopped. Each record is authenticated; what was edited, removed, added
or put back to an older state is named, with the entry that last changed it. It says
too what a start would refuse. Counts of uses are not in the log.

First verify the log itself, with keywright audit verify: a log that was changed
proves nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			return verifyStore(cmd.Context(), c, log, cmd.OutOrStdout())
		},
	}
}

func verifyStore(ctx context.Context, c *config.Config, log *slog.Logger, out io.Writer) error {
	return withStack(ctx, c, log, false, func(s *stack) error {
		found, err := kms.VerifyStore(ctx, s.config(c, log, nil), func(entries uint64) {
			log.Info("reading the audit log", "entries", entries)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d entries of the audit log and %d records of the store were compared.\n", found.Entries, found.Records)
		if found.Unknown > 0 {
			fmt.Fprintf(out, "%d records were last written before the log's oldest entry and could only be authenticated.\n", found.Unknown)
		}
		for _, d := range found.Differences {
			if d.Path == "" {
				fmt.Fprintf(out, "start: %s\n", d.Problem)
				continue
			}
			fmt.Fprintf(out, "%s: %s\n", d.Path, d.Problem)
		}
		if n := len(found.Differences); n > 0 {
			return fmt.Errorf("%w: %d differences", errDiffers, n)
		}
		fmt.Fprintln(out, "No difference.")
		return nil
	})
}

func newAcceptRollbackCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "accept-rollback NAME",
		Short: "Accept, by its name, that the store or the audit log was put back to an older state",
		Long: `Accept that the store or the audit log was put back to an older state, while the
server is stopped. A start that is refused for that reason prints the NAME, which
says what exactly is accepted. The audit log gets an entry about it. What the log
says was changed since, and the store no longer has, is lost; tokens that were
revoked since are valid again, and versions destroyed since are back.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			err = withStack(cmd.Context(), c, log, true, func(s *stack) error {
				return kms.AcceptRollback(cmd.Context(), s.config(c, log, nil), args[0])
			})
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is accepted, and logged. See what is missing with keywrightd verify-store, and start the server.\n", args[0])
			}
			return err
		},
	}
}
