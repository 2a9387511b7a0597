package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/kms"
)

// errReason means that nobody would know why the log's keys have a break.
var errReason = errors.New("say by --reason what became of the old key: whoever verifies the log will read it")

func newAuditKeyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit-key",
		Short: "Manage the audit key, which signs the log's checkpoints",
		Args:  cobra.NoArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(newReplaceAuditKeyCommand(a))
	return cmd
}

func newReplaceAuditKeyCommand(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "replace",
		Short: "Make a new audit key in place of one that is lost from the token, while the server is stopped",
		Long: `Make a new audit key in place of one that is lost from the token, while the server is
stopped. Nothing can vouch for it: the log's keys declare the break, with the reason,
and everybody who verifies the log must be given the new key. A key that is still
there is replaced without a break by keywright audit rotate-key.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reason == "" {
				return errReason
			}
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			return withStack(cmd.Context(), c, log, false, func(s *stack) error {
				key, err := kms.ReplaceAuditKey(cmd.Context(), s.config(c, log, nil), reason)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "The audit log's verifier key from here on; give it to whoever verifies:\n  %s\n", key)
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "what became of the old key, up to 200 characters")
	return cmd
}
