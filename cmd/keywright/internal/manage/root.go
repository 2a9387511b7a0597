package manage

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) rootCommand() *cobra.Command {
	return a.Group("root", "List, rotate, migrate and destroy root keys",
		a.rootList(), a.rootRotate(), a.rootMigrate(), a.rootDestroy(), a.rootRestore())
}

func (a app) rootList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the versions of the root key, and how much each still wraps", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			response, err := c.ListRoots(ctx, &keywrightv1.ListRootsRequest{})
			if err != nil {
				return err
			}
			return command.List(a.App, rootColumns(), response.GetRoots())
		})}
}

func (a app) rootRotate() *cobra.Command {
	var token string
	var wait bool
	cmd := &cobra.Command{Use: "rotate", Short: "Make a new root key on a token; keys go on serving", Args: command.Arguments(0, 0),
		Long: `Make a new version of the root key on a token and put it in force. What the one
before wraps is wrapped anew in the background, while keys go on serving; "root
list" tells how far that has come. On a token that has no root key yet it is the
first, and namespaces can be bound to it.

The version that was replaced stays on the token, for backups of the store that
need it: destroy it when there are none any more.`,
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			made, err := c.RotateRoot(ctx, &keywrightv1.RotateRootRequest{Token: token, IdempotencyKey: command.IdempotencyKey()})
			for wait && err == nil && ctx.Err() == nil {
				var done bool
				if made, done, err = rootAsItIs(ctx, c, made); done {
					break
				}
				pause(ctx)
			}
			return a.showRoot(made, err)
		})}
	cmd.Flags().StringVar(&token, "token", "", "the token, as the server's configuration calls it; without it the default one")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until all is wrapped anew; it goes on without that, too")
	return cmd
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(rekeyPoll):
	}
}

// rootAsItIs returns a version as it is now, and whether none that it replaced on
// its token still wraps anything.
func rootAsItIs(ctx context.Context, c *client.Client, root *keywrightv1.RootVersion) (now *keywrightv1.RootVersion, done bool, err error) {
	response, err := c.ListRoots(ctx, &keywrightv1.ListRootsRequest{})
	now, done = root, true
	for _, r := range response.GetRoots() {
		if r.GetVersion() == root.GetVersion() {
			now = r
		}
		if r.GetToken() == root.GetToken() && r.GetState() == keywrightv1.RootState_ROOT_RETIRING {
			done = false
		}
	}
	return now, done, err
}

func (a app) rootMigrate() *cobra.Command {
	var to string
	cmd := &cobra.Command{Use: "migrate NAMESPACE --to TOKEN", Short: "Move a namespace's SOFTWARE keys to another token; they go on serving", Args: command.Arguments(1, 1),
		Long: `Move a namespace's SOFTWARE keys to another token: its domain secret is wrapped by
that token's root key, in one step, while keys go on serving. The secret stays the
same: after a leak, rekey the namespace as well. Keys of protection level HSM
cannot leave their token; with any in the namespace the move is refused.`,
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			if to == "" {
				return command.Usagef("say where to by --to; `status` shows the tokens")
			}
			return a.showNamespace(c.MigrateNamespace(ctx, &keywrightv1.MigrateNamespaceRequest{
				Namespace: args[0], Token: to, IdempotencyKey: command.IdempotencyKey()}))
		})}
	cmd.Flags().StringVar(&to, "to", "", "the token, as the server's configuration calls it")
	return cmd
}

func rootNumber(text string) (uint32, error) {
	number, err := strconv.ParseUint(text, 10, 32)
	if err != nil || number == 0 {
		return 0, command.Usagef("%q is no version of the root key; `root list` shows those there are", text)
	}
	return uint32(number), nil
}

func (a app) rootDestroy() *cobra.Command {
	var destroy destroyFlags
	var force string
	cmd := &cobra.Command{Use: "destroy VERSION", Short: "Schedule the destruction of a replaced root key on its token", Args: command.Arguments(1, 1),
		Long: `Schedule the destruction, on its token, of a version of the root key that was
replaced. Nothing in the store needs it any more; but backups of the store that were
made while it was in force can never be opened again. Until it happens "root
restore" takes it back.`,
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			number, err := rootNumber(args[0])
			if err != nil {
				return err
			}
			consequence := fmt.Sprintf("This schedules the destruction of version %d of the root key: no backup of the store from before it was replaced can be opened afterwards", number)
			if force != "" {
				consequence += ", and all keys below the domain secrets that it still wraps are lost for ever"
			}
			if err := a.Confirm(destroy.yes, consequence, args[0]); err != nil {
				return err
			}
			return a.showRoot(c.DestroyRoot(ctx, &keywrightv1.DestroyRootRequest{
				Version: number, Delay: destroy.delay.Proto(), ConfirmLoss: force, IdempotencyKey: command.IdempotencyKey()}))
		})}
	destroy.add(cmd)
	cmd.Flags().StringVar(&force, "force", "", "the version's id, where what it still wraps is to be lost with it")
	return cmd
}

func (a app) rootRestore() *cobra.Command {
	return &cobra.Command{Use: "restore VERSION", Short: "Take the scheduled destruction of a root key back", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			number, err := rootNumber(args[0])
			if err != nil {
				return err
			}
			return a.showRoot(c.RestoreRoot(ctx, &keywrightv1.RestoreRootRequest{Version: number, IdempotencyKey: command.IdempotencyKey()}))
		})}
}

func (a app) showRoot(root *keywrightv1.RootVersion, err error) error {
	if err != nil {
		return err
	}
	return command.Describe(a.App, rootColumns(), root)
}

func rootColumns() []ui.Column[*keywrightv1.RootVersion] {
	type root = *keywrightv1.RootVersion
	return []ui.Column[root]{
		{Title: "version", Value: func(r root) string { return ui.Number(r.GetVersion()) }},
		{Title: "token", Value: root.GetToken},
		{Title: "state", Value: func(r root) string { return strings.TrimPrefix(r.GetState().String(), "ROOT_") }},
		{Title: "wraps", Value: func(r root) string { return strconv.FormatUint(r.GetDomains(), 10) }},
		{Title: "id", Value: root.GetId},
		{Title: "created", Value: func(r root) string { return ui.Time(r.GetCreateTime()) }},
		{Title: "replaced", Value: func(r root) string { return ui.Time(r.GetReplaceTime()) }},
		{Title: "retired", Detail: true, Value: func(r root) string { return ui.Time(r.GetRetireTime()) }},
		{Title: "destruction", Value: func(r root) string { return ui.Time(r.GetDestroyTime()) }},
	}
}

// tokenList says how the tokens beside the default one do, one after another.
func tokenList(s *keywrightv1.Status) string {
	var all []string
	for _, t := range s.GetTokens() {
		if len(s.GetTokens()) == 1 {
			break
		}
		text := fmt.Sprintf("%s: %s", ui.Cell(t.GetName()), health(t.GetHsm().GetHealthy(), ui.Cell(t.GetHsm().GetProblem())))
		if t.GetHsm().GetRootVersion() > 0 {
			text += fmt.Sprintf(", root version %d", t.GetHsm().GetRootVersion())
		}
		if t.GetAwayTime() != nil {
			text += ", away since " + ui.Time(t.GetAwayTime())
		}
		if t.GetSealTime() != nil {
			text += ", SEALED since " + ui.Time(t.GetSealTime())
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func rewrapText(s *keywrightv1.Status) string {
	switch {
	case s.GetRewrapProblem() != "":
		return fmt.Sprintf("%d domain secrets left: %s", s.GetRewrapRemaining(), ui.Cell(s.GetRewrapProblem()))
	case s.GetRewrapRemaining() > 0:
		return fmt.Sprintf("%d domain secrets left", s.GetRewrapRemaining())
	}
	return ""
}
