package manage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const policyHelp = `Write, read, list and delete Cedar policies, which say who may do what; explain
what they decide, and try changes before they are made.

A policy is named NAME, for one of the installation, or NAMESPACE/NAME, for one
that its namespace owns and that reaches no further. --namespace counts here only
as a flag, not from the environment: a policy must not change its reach unseen.`

// maxPolicy is above the server's limit for a policy's text, in bytes.
const maxPolicy = 1 << 20

func (a app) policyCommand() *cobra.Command {
	cmd := a.Group("policy", "Write, explain and try policies", a.policyPut(), a.policyGet(), a.policyList(), a.policyDelete(),
		a.policyExplain(), a.policyTest(), a.policyDiff(), a.policyWho())
	cmd.Long = policyHelp
	return cmd
}

// policyName takes NAMESPACE/NAME apart, or NAME.
func (a app) policyName(text string) (namespace, name string, err error) {
	namespace, name, slash := strings.Cut(text, "/")
	if !slash {
		namespace, name = a.Namespace, text
	}
	if name == "" || slash && namespace == "" || strings.Contains(name, "/") {
		return "", "", command.Usagef("%q is no policy's name; write NAME or NAMESPACE/NAME", text)
	}
	return namespace, name, nil
}

func (a app) policyPut() *cobra.Command {
	var in command.InputFlags
	var confirm string
	var yes bool
	cmd := &cobra.Command{Use: "put [NAMESPACE/]NAME [FILE]", Short: "Write a policy from a file or standard input", Args: command.Arguments(1, 2),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace, name, err := a.policyName(args[0])
			if err != nil {
				return err
			}
			text, err := a.readPolicy(ctx, args, in)
			if err != nil {
				return err
			}
			if err := a.confirmReplacement(ctx, c, yes, namespace, name, text); err != nil {
				return err
			}
			policy, err := c.PutPolicy(ctx, &keywrightv1.PutPolicyRequest{Namespace: namespace, Name: name, Text: text, ConfirmLockout: confirm, IdempotencyKey: command.IdempotencyKey()})
			if err != nil {
				return err
			}
			return command.Describe(a.App, policyColumns(), policy)
		})}
	in.Add(cmd)
	addConfirmLockout(cmd, &confirm)
	addYes(cmd, &yes)
	return cmd
}

func (a app) readPolicy(ctx context.Context, args []string, in command.InputFlags) (string, error) {
	path, err := in.From(args, 1)
	if err != nil {
		return "", err
	}
	file, err := ui.Open(ctx, path, a.In, false)
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := ui.ReadAll(file, maxPolicy)
	return string(text), err
}

// confirmReplacement asks before another policy of that name is lost.
func (a app) confirmReplacement(ctx context.Context, c *client.Client, yes bool, namespace, name, text string) error {
	if yes {
		return nil
	}
	old, err := c.GetPolicy(ctx, &keywrightv1.GetPolicyRequest{Namespace: namespace, Name: name})
	if failed, ok := errors.AsType[*client.Error](err); ok && failed.Code == codes.NotFound {
		return nil
	}
	if err != nil || old.GetText() == text {
		return err
	}
	return a.Confirm(false, fmt.Sprintf("This replaces the policy %s, last written at %s", name, ui.Time(old.GetUpdateTime())), name)
}

func (a app) policyGet() *cobra.Command {
	return &cobra.Command{Use: "get [NAMESPACE/]NAME", Short: "Print a policy's text", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace, name, err := a.policyName(args[0])
			if err != nil {
				return err
			}
			policy, err := c.GetPolicy(ctx, &keywrightv1.GetPolicyRequest{Namespace: namespace, Name: name})
			if err != nil {
				return err
			}
			if a.JSON() {
				return ui.JSON(a.Out, policy)
			}
			_, err = io.WriteString(ui.TextOnly(a.Out), strings.TrimSuffix(policy.GetText(), "\n")+"\n")
			return err
		})}
}

func (a app) policyList() *cobra.Command {
	return &cobra.Command{Use: "list [NAMESPACE]", Short: "List all policies, or those of a namespace", Args: command.Arguments(0, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace := a.Namespace
			if len(args) > 0 {
				namespace = args[0]
			}
			return command.ListPages(ctx, a.App, policyColumns(), func(ctx context.Context, token string) ([]*keywrightv1.Policy, string, error) {
				page, err := c.ListPolicies(ctx, &keywrightv1.ListPoliciesRequest{Namespace: namespace, PageSize: command.MaxPage, PageToken: token})
				return page.GetPolicies(), page.GetNextPageToken(), err
			})
		})}
}

func (a app) policyDelete() *cobra.Command {
	var confirm string
	var yes bool
	cmd := &cobra.Command{Use: "delete [NAMESPACE/]NAME", Short: "Delete a policy", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			namespace, name, err := a.policyName(args[0])
			if err != nil {
				return err
			}
			if err := a.Confirm(yes, "This deletes the policy "+args[0]+" for good; what it permitted or forbade no longer is", args[0]); err != nil {
				return err
			}
			_, err = c.DeletePolicy(ctx, &keywrightv1.DeletePolicyRequest{Namespace: namespace, Name: name, ConfirmLockout: confirm, IdempotencyKey: command.IdempotencyKey()})
			if err != nil || !a.JSON() {
				return err
			}
			return ui.ValueJSON(a.Out, struct{}{})
		})}
	addConfirmLockout(cmd, &confirm)
	addYes(cmd, &yes)
	return cmd
}

func policyColumns() []ui.Column[*keywrightv1.Policy] {
	type p = *keywrightv1.Policy
	return []ui.Column[p]{
		{Title: "policy", Value: p.GetName},
		{Title: "namespace", Value: p.GetNamespace},
		{Title: "revision", Value: func(p p) string { return strconv.FormatUint(p.GetRevision(), 10) }},
		{Title: "created", Detail: true, Value: func(p p) string { return ui.Time(p.GetCreateTime()) }},
		{Title: "updated", Value: func(p p) string { return ui.Time(p.GetUpdateTime()) }},
	}
}
