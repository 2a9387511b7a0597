package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/kms/store/badger"
)

func newCompactStoreCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "compact-store",
		Short: "Rewrite the store's files without what was replaced or removed, while the server is stopped",
		Long: `Rewrite the store's files so that they hold the present records only, and nothing
that was replaced or removed: the secrets of generations that namespace rekey has
replaced, and material that was destroyed. The server must be stopped. It needs as
much free space as the store takes. It neither needs the token nor changes any record;
interrupted, it leaves the store as it was.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			if err := requireData(c); err != nil {
				return err
			}
			if err := badger.Compact(badger.Options{Dir: c.StoreDir(), Logger: log}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s holds the present records only.\n", c.StoreDir())
			return err
		},
	}
}
