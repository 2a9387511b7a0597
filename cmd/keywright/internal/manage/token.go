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
	return a.Group("token", "Create, renew and revoke tokens, and show who one is",
		a.tokenCreate(), a.tokenRenew(), a.tokenRevoke(), a.tokenRevocations(), a.whoamiCommand())
}

const tokenHelp = `Create a token for the principal Token::"PRINCIPAL" and print it once. Use it in
` + client.EnvToken + `, or in a file named by --token-file or ` + client.EnvTokenFile + `.

A token that is created with a token is its child: it ends no later, may do no
more, and is revoked with it. --action and --resource narrow what it may do of
what policies permit: actions and roles; namespaces, NAMESPACE/KEY, and "system"
for the installation itself.

With --renewable-for it is valid for --ttl (up to 32 days) at a time, and "token
renew" prolongs it, until then.`

func (a app) tokenCreate() *cobra.Command {
	var ttl, renewableFor command.Span
	var q keywrightv1.CreateTokenRequest
	var path string
	cmd := &cobra.Command{Use: "create PRINCIPAL", Short: "Create a token", Long: tokenHelp, Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			q.Principal, q.Ttl, q.RenewableFor, q.IdempotencyKey = args[0], ttl.Proto(), renewableFor.Proto(), command.IdempotencyKey()
			token, err := c.CreateToken(ctx, &q)
			if err != nil {
				return err
			}
			return a.printToken(token, path)
		})}
	cmd.Flags().Var(&ttl, "ttl", "how long it is valid, 1m to 24h; 1h if not given")
	cmd.Flags().Var(&renewableFor, "renewable-for", "how long it can be renewed, such as 365d; not at all if not given")
	cmd.Flags().StringArrayVar(&q.Groups, "group", nil, "a group of the principal; repeatable")
	cmd.Flags().StringArrayVar(&q.Actions, "action", nil, "an action or role that it is narrowed to; repeatable")
	cmd.Flags().StringArrayVar(&q.Resources, "resource", nil, "a namespace or NAMESPACE/KEY that it is narrowed to; repeatable")
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
	renewable := ""
	if token.GetRenewableUntil() != nil {
		renewable = ", renewable until " + ui.Time(token.GetRenewableUntil())
	}
	_, err := fmt.Fprintf(a.Err, "token %s, valid until %s%s\n", token.GetId(), ui.Time(token.GetExpireTime()), renewable)
	return err
}

func (a app) tokenRenew() *cobra.Command {
	var ttl command.Span
	cmd := &cobra.Command{Use: "renew", Short: "Prolong the token in use, up to its maximum", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			renewed, err := c.RenewToken(ctx, &keywrightv1.RenewTokenRequest{Ttl: ttl.Proto()})
			if err != nil {
				return err
			}
			type r = *keywrightv1.RenewTokenResponse
			return command.Describe(a.App, []ui.Column[r]{
				{Title: "expires", Value: func(r r) string { return ui.Time(r.GetExpireTime()) }},
				{Title: "renewable until", Value: func(r r) string { return ui.Time(r.GetRenewableUntil()) }},
			}, renewed)
		})}
	cmd.Flags().Var(&ttl, "ttl", "how long from now, 1m to 32d; as long as it was created for if not given")
	return cmd
}

const revokeHelp = `Revoke the token with an id, and all that descend from it; or, with --principal,
the tokens of a principal that were made before a time, with theirs. Of a principal
that bears no token, such as User::"corp:CN=alice", these are the tokens it made.

It is in force when the command returns, on other servers within a second. A
token may revoke itself.`

func (a app) tokenRevoke() *cobra.Command {
	var principal, before string
	cmd := &cobra.Command{Use: "revoke (ID | --principal PRINCIPAL [--before TIME])", Short: "Revoke tokens", Long: revokeHelp, Args: command.Arguments(0, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			q := &keywrightv1.RevokeTokensRequest{Principal: principal, IdempotencyKey: command.IdempotencyKey()}
			if len(args) > 0 {
				q.Id = args[0]
			}
			if (q.GetId() == "") == (q.GetPrincipal() == "") || q.GetId() != "" && before != "" {
				return command.Usagef("give the id of a token, or --principal and perhaps --before")
			}
			var err error
			if q.Before, err = moment("before", before); err != nil {
				return err
			}
			revoked, err := c.RevokeTokens(ctx, q)
			if err != nil {
				return err
			}
			return command.Describe(a.App, revocationColumns(), revoked.GetRevocation())
		})}
	cmd.Flags().StringVar(&principal, "principal", "", `whose tokens, as policies name it, such as Token::"billing"`)
	cmd.Flags().StringVar(&before, "before", "", "only those made before: a time (RFC 3339), or how long ago, such as 2h; now if not given")
	return cmd
}

func (a app) tokenRevocations() *cobra.Command {
	return &cobra.Command{Use: "revocations", Short: "List the revocations in force", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			return command.ListPages(ctx, a.App, revocationColumns(), func(ctx context.Context, token string) ([]*keywrightv1.Revocation, string, error) {
				page, err := c.ListRevocations(ctx, &keywrightv1.ListRevocationsRequest{PageSize: command.MaxPage, PageToken: token})
				return page.GetRevocations(), page.GetNextPageToken(), err
			})
		})}
}

func revocationColumns() []ui.Column[*keywrightv1.Revocation] {
	type r = *keywrightv1.Revocation
	return []ui.Column[r]{
		{Title: "token", Value: r.GetId},
		{Title: "principal", Value: r.GetPrincipal},
		{Title: "made before", Value: func(r r) string { return ui.Time(r.GetBefore()) }},
		{Title: "revoked", Value: func(r r) string { return ui.Time(r.GetCreateTime()) }},
		{Title: "forgotten", Value: func(r r) string { return ui.Time(r.GetExpireTime()) }},
	}
}

func (a app) whoamiCommand() *cobra.Command {
	return &cobra.Command{Use: "whoami", Short: "Show who the server takes the caller for", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			who, err := c.WhoAmI(ctx, &keywrightv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			type w = *keywrightv1.WhoAmIResponse
			texts := func(list func(w) []string) func(w) string {
				return func(w w) string { return strings.Join(list(w), ",") }
			}
			return command.Describe(a.App, []ui.Column[w]{
				{Title: "principal", Value: w.GetPrincipal},
				{Title: "method", Value: w.GetMethod},
				{Title: "groups", Value: texts(w.GetGroups)},
				{Title: "token", Value: w.GetTokenId},
				{Title: "ancestors", Value: texts(w.GetAncestors)},
				{Title: "narrowed to actions", Value: texts(w.GetActions)},
				{Title: "narrowed to resources", Value: texts(w.GetResources)},
				{Title: "expires", Value: func(w w) string { return ui.Time(w.GetExpireTime()) }},
				{Title: "renewable until", Value: func(w w) string { return ui.Time(w.GetRenewableUntil()) }},
			}, who)
		})}
}
