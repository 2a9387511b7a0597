package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a *app) namespaceCommand() *cobra.Command {
	return a.group("namespace", "Create, list, describe and update namespaces",
		a.namespaceCreate(), a.namespaceList(), a.namespaceDescribe(), a.namespaceUpdate())
}

func (a *app) namespaceCreate() *cobra.Command {
	var labels pairs
	cmd := &cobra.Command{Use: "create NAMESPACE", Short: "Create a namespace", Args: arguments(1, 1),
		RunE: a.run(func(ctx context.Context, c *client.Client, args []string) error {
			return a.showNamespace(c.CreateNamespace(ctx, &keywrightv1.CreateNamespaceRequest{
				Namespace: args[0], Labels: labels, IdempotencyKey: idempotencyKey()}))
		})}
	cmd.Flags().Var(&labels, "label", "a label; repeatable")
	return cmd
}

func (a *app) namespaceList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List namespaces", Args: arguments(0, 0),
		RunE: a.run(func(ctx context.Context, c *client.Client, _ []string) error {
			return listPages(ctx, a, namespaceColumns(), func(ctx context.Context, token string) ([]*keywrightv1.Namespace, string, error) {
				page, err := c.ListNamespaces(ctx, &keywrightv1.ListNamespacesRequest{PageSize: maxPage, PageToken: token})
				return page.GetNamespaces(), page.GetNextPageToken(), err
			})
		})}
}

func (a *app) namespaceDescribe() *cobra.Command {
	return &cobra.Command{Use: "describe [NAMESPACE]", Short: "Show a namespace", Args: arguments(0, 1),
		RunE: a.run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace, err := a.namespaceArgument(args)
			if err != nil {
				return err
			}
			return a.showNamespace(c.GetNamespace(ctx, &keywrightv1.GetNamespaceRequest{Namespace: namespace}))
		})}
}

func (a *app) namespaceUpdate() *cobra.Command {
	var labels labelFlags
	cmd := &cobra.Command{Use: "update NAMESPACE", Short: "Replace a namespace's labels", Args: arguments(1, 1),
		RunE: a.run(func(ctx context.Context, c *client.Client, args []string) error {
			replacement, err := labels.proto()
			if err != nil {
				return err
			}
			if replacement == nil {
				return usagef("nothing to update; give --label or --no-labels")
			}
			return a.showNamespace(c.UpdateNamespace(ctx, &keywrightv1.UpdateNamespaceRequest{
				Namespace: args[0], Labels: replacement, IdempotencyKey: idempotencyKey()}))
		})}
	labels.add(cmd)
	return cmd
}

func (a *app) showNamespace(namespace *keywrightv1.Namespace, err error) error {
	if err != nil {
		return err
	}
	return describe(a, namespaceColumns(), namespace)
}

func namespaceColumns() []ui.Column[*keywrightv1.Namespace] {
	type ns = *keywrightv1.Namespace
	return []ui.Column[ns]{
		{Title: "namespace", Value: ns.GetName},
		{Title: "id", Value: ns.GetId},
		{Title: "generation", Detail: true, Value: func(n ns) string { return number(n.GetGeneration()) }},
		{Title: "labels", Value: func(n ns) string { return ui.Pairs(n.GetLabels()) }},
		{Title: "created", Value: func(n ns) string { return ui.Time(n.GetCreateTime()) }},
		{Title: "updated", Detail: true, Value: func(n ns) string { return ui.Time(n.GetUpdateTime()) }},
	}
}

// labelFlags replace all labels.
type labelFlags struct {
	labels pairs
	none   bool
}

func (l *labelFlags) add(cmd *cobra.Command) {
	cmd.Flags().Var(&l.labels, "label", "a label of the new set, which replaces all; repeatable")
	cmd.Flags().BoolVar(&l.none, "no-labels", false, "remove all labels")
}

// proto returns nil when the labels are to stay.
func (l *labelFlags) proto() (*keywrightv1.Labels, error) {
	switch {
	case l.none && len(l.labels) > 0:
		return nil, usagef("--label and --no-labels exclude each other")
	case l.none || len(l.labels) > 0:
		return &keywrightv1.Labels{Entries: l.labels}, nil
	}
	return nil, nil
}
