package manage

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) policyWho() *cobra.Command {
	return &cobra.Command{Use: "who [KEY|NAMESPACE] ACTION", Short: "Show who may do something, by which policy and on which condition",
		Long: "Show who may do ACTION to a key, a namespace or, with neither, the installation:\nby which policy, on which condition, and who is excepted.",
		Args: command.Arguments(1, 2),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace, key, err := a.resourceName(strings.Join(args[:len(args)-1], ""))
			if err != nil {
				return err
			}
			list, err := c.ListPermitted(ctx, &keywrightv1.ListPermittedRequest{Action: args[len(args)-1], Namespace: namespace, Key: key})
			if err != nil {
				return err
			}
			return a.printPermitted(list)
		})}
}

func (a app) printPermitted(list *keywrightv1.ListPermittedResponse) error {
	if a.JSON() {
		return ui.JSON(a.Out, list)
	}
	out := bufio.NewWriter(a.Out)
	if len(list.GetPermitted()) == 0 {
		_, _ = fmt.Fprintln(out, "nobody") // Flush returns the error
	}
	for _, p := range list.GetPermitted() {
		fmt.Fprintf(out, "%s  by %s\n", ui.Cell(p.GetWho()), policyPlace(p.GetPolicy()))
		for _, member := range p.GetMembers() {
			fmt.Fprintf(out, "    %s\n", ui.Cell(member))
		}
		for _, condition := range p.GetConditions() {
			fmt.Fprintf(out, "  %s\n", ui.Cell(condition))
		}
	}
	for _, e := range list.GetExceptions() {
		fmt.Fprintf(out, "but not %s  by %s\n", ui.Cell(e.GetDetail()), policyPlace(e))
	}
	return out.Flush()
}
