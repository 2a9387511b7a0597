package manage

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// rekeyPoll is how often --wait asks how far a rekeying has come.
const rekeyPoll = 500 * time.Millisecond

func (a app) namespaceDelete() *cobra.Command {
	var destroy destroyFlags
	cmd := &cobra.Command{Use: "delete NAMESPACE", Short: "Schedule the removal of a namespace with all its keys and policies", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			if err := a.Confirm(destroy.yes, "This makes all keys of "+args[0]+" unusable at once and schedules their removal, and that of its policies", args[0]); err != nil {
				return err
			}
			return a.showNamespace(c.DeleteNamespace(ctx, &keywrightv1.DeleteNamespaceRequest{
				Namespace: args[0], Delay: destroy.delay.Proto(), IdempotencyKey: command.IdempotencyKey()}))
		})}
	destroy.add(cmd)
	return cmd
}

func (a app) namespaceRestore() *cobra.Command {
	return &cobra.Command{Use: "restore NAMESPACE", Short: "Take the scheduled removal of a namespace back", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			return a.showNamespace(c.RestoreNamespace(ctx, &keywrightv1.RestoreNamespaceRequest{
				Namespace: args[0], IdempotencyKey: command.IdempotencyKey()}))
		})}
}

func (a app) namespaceRekey() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{Use: "rekey NAMESPACE", Short: "Make a new domain secret and seal all keys anew; they go on serving", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace, err := c.RekeyNamespace(ctx, &keywrightv1.RekeyNamespaceRequest{Namespace: args[0], IdempotencyKey: command.IdempotencyKey()})
			for wait && err == nil && namespace.GetRekey().GetEndTime() == nil {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(rekeyPoll):
				}
				namespace, err = c.GetNamespace(ctx, &keywrightv1.GetNamespaceRequest{Namespace: args[0]})
			}
			return a.showNamespace(namespace, err)
		})}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until all is sealed anew; it goes on without that, too")
	return cmd
}

func (a app) namespaceConfirmErasure() *cobra.Command {
	var generation uint32
	var yes bool
	cmd := &cobra.Command{Use: "confirm-erasure NAMESPACE --generation N", Short: "Declare that no backup holds a generation that was replaced", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			if generation == 0 {
				return command.Usagef("say which generation by --generation; `namespace describe` shows which was replaced last")
			}
			consequence := fmt.Sprintf("This declares in your name that no backup and no old file of the store is left that holds generation %d of %s or one before", generation, args[0])
			if err := a.Confirm(yes, consequence, args[0]); err != nil {
				return err
			}
			return a.showNamespace(c.ConfirmErasure(ctx, &keywrightv1.ConfirmErasureRequest{
				Namespace: args[0], Generation: generation, IdempotencyKey: command.IdempotencyKey()}))
		})}
	cmd.Flags().Uint32Var(&generation, "generation", 0, "the generation, with all before it")
	addYes(cmd, &yes)
	return cmd
}
