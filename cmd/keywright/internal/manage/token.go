package manage

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) tokenCommand() *cobra.Command {
	return a.Group("token", "Create tokens and show who one is", a.tokenCreate(), a.whoamiCommand())
}

const tokenHelp = `Create a token for the principal Token::"PRINCIPAL" and print it once. Use it in
` + client.EnvToken + `, or in a file named by --token-file or ` + client.EnvTokenFile + `.`

func (a app) tokenCreate() *cobra.Command {
	var ttl command.Span
	var groups []string
	var path string
	cmd := &cobra.Command{Use: "create PRINCIPAL", Short: "Create a short-lived token", Long: tokenHelp, Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			token, err := c.CreateToken(ctx, &keywrightv1.CreateTokenRequest{Principal: args[0], Ttl: ttl.Proto(), Groups: groups})
			if err != nil {
				return err
			}
			return a.printToken(token, path)
		})}
	cmd.Flags().Var(&ttl, "ttl", "how long it is valid, 1m to 24h; 1h if not given")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "a group of the principal; repeatable")
	cmd.Flags().StringVar(&path, "out", "", "file to write the token to, mode 0600, instead of printing it")
	return cmd
}

// printToken prints the token alone, so that a shell can take it; what else there is to say goes to stderr.
func (a app) printToken(token *keywrightv1.CreateTokenResponse, path string) error {
	if path != "" {
		if err := ui.WriteFile(path, []byte(token.GetToken()+"\n")); err != nil {
			return err
		}
		token.Token = ""
	}
	if a.JSON() {
		return ui.JSON(a.Out, token)
	}
	if path == "" {
		if _, err := fmt.Fprintln(a.Out, token.GetToken()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(a.Err, "token %s, valid until %s\n", token.GetId(), ui.Time(token.GetExpireTime()))
	return err
}

func (a app) whoamiCommand() *cobra.Command {
	return &cobra.Command{Use: "whoami", Short: "Show who the server takes the caller for", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			who, err := c.WhoAmI(ctx, &keywrightv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			type w = *keywrightv1.WhoAmIResponse
			return command.Describe(a.App, []ui.Column[w]{
				{Title: "principal", Value: w.GetPrincipal},
				{Title: "method", Value: w.GetMethod},
				{Title: "groups", Value: func(w w) string { return strings.Join(w.GetGroups(), ",") }},
				{Title: "token", Value: w.GetTokenId},
				{Title: "expires", Value: func(w w) string { return ui.Time(w.GetExpireTime()) }},
			}, who)
		})}
}
