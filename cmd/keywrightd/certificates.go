package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/kms"
)

func newCertificatesCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certificates",
		Short: "Manage the certificates of the local CA",
		Args:  cobra.NoArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(newRenewCommand(a))
	return cmd
}

func newRenewCommand(a *app) *cobra.Command {
	var hosts []string
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Issue the server's and the administrator's certificates anew, while the server is stopped",
		Long: `Issue the server's and the administrator's certificates anew from the CA that
init made, and write the profile again. The server must be stopped. This also
helps when the administrator's certificate expired or was lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			err = withService(cmd.Context(), c, log, nil, func(s *stack, service *kms.Service) error {
				return credentialsOf(c).renew(cmd.Context(), s, service, hosts)
			})
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "Certificates were issued to %s.\n", c.TLSDir())
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&hosts, "san", nil, "a further host name or IP address of the server (repeatable)")
	return cmd
}
