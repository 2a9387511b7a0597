package manage

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) namespaceCommand() *cobra.Command {
	return a.Group("namespace", "Create, list, describe, update, rekey and delete namespaces",
		a.namespaceCreate(), a.namespaceList(), a.namespaceDescribe(), a.namespaceUpdate(), a.namespaceDelete(), a.namespaceRestore(),
		a.namespaceRekey(), a.namespaceConfirmErasure())
}

// quotaFlags bound a namespace.
type quotaFlags struct{ maxKeys, requestsPerSecond uint64 }

const (
	flagMaxKeys           = "max-keys"
	flagRequestsPerSecond = "requests-per-second"
)

func (q *quotaFlags) add(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&q.maxKeys, flagMaxKeys, 0, "how many keys the namespace may have; 0 is no bound")
	cmd.Flags().Uint64Var(&q.requestsPerSecond, flagRequestsPerSecond, 0, "how many requests a second each server takes for it; 0 is no bound")
}

// proto returns nil when no flag was given. What no flag gives stays as it is:
// present tells what that is.
func (q *quotaFlags) proto(cmd *cobra.Command, present func() (*keywrightv1.Quotas, error)) (*keywrightv1.Quotas, error) {
	keys, requests := cmd.Flags().Changed(flagMaxKeys), cmd.Flags().Changed(flagRequestsPerSecond)
	out := &keywrightv1.Quotas{MaxKeys: q.maxKeys, RequestsPerSecond: q.requestsPerSecond}
	if keys == requests {
		if !keys {
			out = nil
		}
		return out, nil
	}
	now, err := present()
	if !keys {
		out.MaxKeys = now.GetMaxKeys()
	}
	if !requests {
		out.RequestsPerSecond = now.GetRequestsPerSecond()
	}
	return out, err
}

func (a app) namespaceCreate() *cobra.Command {
	var labels command.Pairs
	var quotas quotaFlags
	var token string
	var plaintext bool
	cmd := &cobra.Command{Use: "create NAMESPACE", Short: "Create a namespace", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			return a.showNamespace(c.CreateNamespace(ctx, &keywrightv1.CreateNamespaceRequest{
				Namespace: args[0], Labels: labels, Token: token, PlaintextExport: plaintext, IdempotencyKey: command.IdempotencyKey(),
				Quotas: &keywrightv1.Quotas{MaxKeys: quotas.maxKeys, RequestsPerSecond: quotas.requestsPerSecond}}))
		})}
	cmd.Flags().Var(&labels, "label", "a label; repeatable")
	cmd.Flags().StringVar(&token, "token", "", "the HSM token that it is bound to, as the server's configuration calls it; without it the default one")
	cmd.Flags().BoolVar(&plaintext, "plaintext-export", false, "let keys of the Vault-compatible API be made exportable in plaintext, for ever")
	quotas.add(cmd)
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
	var quotas quotaFlags
	cmd := &cobra.Command{Use: "update NAMESPACE", Short: "Replace a namespace's labels, or change its quotas", Args: command.Arguments(1, 1)}
	cmd.RunE = a.Run(func(ctx context.Context, c *client.Client, args []string) error {
		request := &keywrightv1.UpdateNamespaceRequest{Namespace: args[0], IdempotencyKey: command.IdempotencyKey()}
		var err error
		if request.Labels, err = labels.Proto(); err != nil {
			return err
		}
		request.Quotas, err = quotas.proto(cmd, func() (*keywrightv1.Quotas, error) {
			n, err := c.GetNamespace(ctx, &keywrightv1.GetNamespaceRequest{Namespace: args[0]})
			return n.GetQuotas(), err
		})
		if err != nil {
			return err
		}
		if request.Labels == nil && request.Quotas == nil {
			return command.Usagef("nothing to update; give --label, --no-labels, --%s or --%s", flagMaxKeys, flagRequestsPerSecond)
		}
		return a.showNamespace(c.UpdateNamespace(ctx, request))
	})
	labels.add(cmd)
	quotas.add(cmd)
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
		{Title: "state", Value: func(n ns) string { return strings.TrimPrefix(n.GetState().String(), "NAMESPACE_") }},
		{Title: "HSM token", Detail: true, Value: ns.GetToken},
		{Title: "plaintext export", Detail: true, Value: func(n ns) string { return ui.YesNo(n.GetPlaintextExport()) }},
		{Title: "generation", Detail: true, Value: func(n ns) string { return ui.Number(n.GetGeneration()) }},
		{Title: "rekey", Detail: true, Value: func(n ns) string { return rekeyText(n.GetRekey()) }},
		{Title: "erased", Detail: true, Value: erasedText},
		{Title: "labels", Value: func(n ns) string { return ui.Pairs(n.GetLabels()) }},
		{Title: "max keys", Detail: true, Value: func(n ns) string { return bound(n.GetQuotas().GetMaxKeys()) }},
		{Title: "requests per second", Detail: true, Value: func(n ns) string { return bound(n.GetQuotas().GetRequestsPerSecond()) }},
		{Title: "created", Value: func(n ns) string { return ui.Time(n.GetCreateTime()) }},
		{Title: "updated", Detail: true, Value: func(n ns) string { return ui.Time(n.GetUpdateTime()) }},
		{Title: "destruction", Value: func(n ns) string { return ui.Time(n.GetDestroyTime()) }},
	}
}

func bound(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func rekeyText(r *keywrightv1.Rekey) string {
	switch {
	case r == nil:
		return ""
	case r.GetEndTime() == nil:
		return fmt.Sprintf("from generation %d, under way since %s, %d records so far", r.GetFromGeneration(), ui.Time(r.GetStartTime()), r.GetRecords())
	}
	return fmt.Sprintf("from generation %d, ended %s, %d records", r.GetFromGeneration(), ui.Time(r.GetEndTime()), r.GetRecords())
}

func erasedText(n *keywrightv1.Namespace) string {
	if n.GetErasedGeneration() == 0 {
		return ""
	}
	return fmt.Sprintf("up to generation %d, since %s", n.GetErasedGeneration(), ui.Time(n.GetEraseTime()))
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
