package manage

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) namespaceCommand() *cobra.Command {
	return a.Group("namespace", "Create, list, describe and update namespaces",
		a.namespaceCreate(), a.namespaceList(), a.namespaceDescribe(), a.namespaceUpdate())
}

func (a app) namespaceCreate() *cobra.Command {
	var labels command.Pairs
	cmd := &cobra.Command{Use: "create NAMESPACE", Short: "Create a namespace", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			return a.showNamespace(c.CreateNamespace(ctx, &keywrightv1.CreateNamespaceRequest{
				Namespace: args[0], Labels: labels, IdempotencyKey: command.IdempotencyKey()}))
		})}
	cmd.Flags().Var(&labels, "label", "a label; repeatable")
	return cmd
}

func (a app) namespaceList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List namespaces", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			return command.ListPages(ctx, a.App, namespaceColumns(), func(ctx context.Context, token string) ([]*keywrightv1.Namespace, string, error) {
				page, err := c.ListNamespaces(ctx, &keywrightv1.ListNamespacesRequest{PageSize: command.MaxPage, PageToken: token})
				return page.GetNamespaces(), page.GetNextPageToken(), err
			})
		})}
}

func (a app) namespaceDescribe() *cobra.Command {
	return &cobra.Command{Use: "describe [NAMESPACE]", Short: "Show a namespace", Args: command.Arguments(0, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace, err := a.NamespaceArgument(args)
			if err != nil {
				return err
			}
			return a.showNamespace(c.GetNamespace(ctx, &keywrightv1.GetNamespaceRequest{Namespace: namespace}))
		})}
}

func (a app) namespaceUpdate() *cobra.Command {
	var labels labelFlags
	cmd := &cobra.Command{Use: "update NAMESPACE", Short: "Replace a namespace's labels", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			replacement, err := labels.Proto()
			if err != nil {
				return err
			}
			if replacement == nil {
				return command.Usagef("nothing to update; give --label or --no-labels")
			}
			return a.showNamespace(c.UpdateNamespace(ctx, &keywrightv1.UpdateNamespaceRequest{
				Namespace: args[0], Labels: replacement, IdempotencyKey: command.IdempotencyKey()}))
		})}
	labels.add(cmd)
	return cmd
}

func (a app) showNamespace(namespace *keywrightv1.Namespace, err error) error {
	if err != nil {
		return err
	}
	return command.Describe(a.App, namespaceColumns(), namespace)
}

func namespaceColumns() []ui.Column[*keywrightv1.Namespace] {
	type ns = *keywrightv1.Namespace
	return []ui.Column[ns]{
		{Title: "namespace", Value: ns.GetName},
		{Title: "id", Value: ns.GetId},
		{Title: "generation", Detail: true, Value: func(n ns) string { return ui.Number(n.GetGeneration()) }},
		{Title: "labels", Value: func(n ns) string { return ui.Pairs(n.GetLabels()) }},
		{Title: "created", Value: func(n ns) string { return ui.Time(n.GetCreateTime()) }},
		{Title: "updated", Detail: true, Value: func(n ns) string { return ui.Time(n.GetUpdateTime()) }},
	}
}

// labelFlags replace all labels.
type labelFlags struct {
	labels command.Pairs
	none   bool
}

func (l *labelFlags) add(cmd *cobra.Command) {
	cmd.Flags().Var(&l.labels, "label", "a label of the new set, which replaces all; repeatable")
	cmd.Flags().BoolVar(&l.none, "no-labels", false, "remove all labels")
}

// proto returns nil when the labels are to stay.
func (l *labelFlags) Proto() (*keywrightv1.Labels, error) {
	switch {
	case l.none && len(l.labels) > 0:
		return nil, command.Usagef("--label and --no-labels exclude each other")
	case l.none || len(l.labels) > 0:
		return &keywrightv1.Labels{Entries: l.labels}, nil
	}
	return nil, nil
}
