package manage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const groupHelp = `Write, read, list and delete groups of principals, which policies name as in
principal in Group::"ops". A principal is in the groups that name it here, and in
those that its token claims.`

// maxMembers is above the server's limit for a group's members, in bytes.
const maxMembers = 1 << 20

func (a app) groupCommand() *cobra.Command {
	cmd := a.Group("group", "Write, read, list and delete groups of principals", a.groupPut(), a.groupGet(), a.groupList(), a.groupDelete())
	cmd.Long = groupHelp
	return cmd
}

func (a app) groupPut() *cobra.Command {
	var in, confirm string
	var yes bool
	cmd := &cobra.Command{Use: "put NAME [MEMBER...]", Short: "Write a group whole, with these members", Args: command.Arguments(1, 10_001),
		Long: "Write a group whole. Members are principals such as 'User::\"corp:CN=alice\"': arguments,\nor lines of a file, as `group get` prints them.",
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			members, err := a.members(ctx, args[1:], in)
			if err != nil {
				return err
			}
			if err := a.confirmMembers(ctx, c, yes, args[0], members); err != nil {
				return err
			}
			group, err := c.PutGroup(ctx, &keywrightv1.PutGroupRequest{Name: args[0], Members: members, ConfirmLockout: confirm, IdempotencyKey: command.IdempotencyKey()})
			if err != nil {
				return err
			}
			return command.Describe(a.App, groupColumns(), group)
		})}
	cmd.Flags().StringVar(&in, "in", "", "file with a member in each line; - is standard input")
	addConfirmLockout(cmd, &confirm)
	addYes(cmd, &yes)
	return cmd
}

func (a app) members(ctx context.Context, arguments []string, path string) ([]string, error) {
	switch {
	case path == "":
		return arguments, nil
	case len(arguments) > 0:
		return nil, command.Usagef("members are given twice, as arguments and by --in")
	}
	file, err := ui.Open(ctx, path, a.In, false)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := ui.ReadAll(file, maxMembers)
	if err != nil {
		return nil, err
	}
	var members []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" {
			members = append(members, line)
		}
	}
	return members, nil
}

// confirmMembers asks before members are lost.
func (a app) confirmMembers(ctx context.Context, c *client.Client, yes bool, name string, members []string) error {
	if yes {
		return nil
	}
	old, err := c.GetGroup(ctx, &keywrightv1.GetGroupRequest{Name: name})
	if failed, ok := errors.AsType[*client.Error](err); ok && failed.Code == codes.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	lost := slices.DeleteFunc(slices.Clone(old.GetMembers()), func(member string) bool { return slices.Contains(members, member) })
	if len(lost) == 0 {
		return nil
	}
	return a.Confirm(false, fmt.Sprintf("This takes %s out of the group %s", firstOf(lost), name), name)
}

// firstOf names the first of some members and counts the others.
func firstOf(members []string) string {
	first := ui.Cell(members[0])
	if len(members) == 1 {
		return first
	}
	return fmt.Sprintf("%s and %d more", first, len(members)-1)
}

func (a app) groupGet() *cobra.Command {
	return &cobra.Command{Use: "get NAME", Short: "Print a group's members, one in each line", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			group, err := c.GetGroup(ctx, &keywrightv1.GetGroupRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if a.JSON() {
				return ui.JSON(a.Out, group)
			}
			for _, member := range group.GetMembers() {
				if _, err := fmt.Fprintln(a.Out, ui.Cell(member)); err != nil {
					return err
				}
			}
			return nil
		})}
}

func (a app) groupList() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List all groups", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			return command.ListPages(ctx, a.App, groupColumns(), func(ctx context.Context, token string) ([]*keywrightv1.Group, string, error) {
				page, err := c.ListGroups(ctx, &keywrightv1.ListGroupsRequest{PageSize: command.MaxPage, PageToken: token})
				return page.GetGroups(), page.GetNextPageToken(), err
			})
		})}
}

func (a app) groupDelete() *cobra.Command {
	var confirm string
	var yes bool
	cmd := &cobra.Command{Use: "delete NAME", Short: "Delete a group", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			if err := a.Confirm(yes, "This deletes the group "+args[0]+" for good; what policies permit or forbid its members no longer is", args[0]); err != nil {
				return err
			}
			_, err := c.DeleteGroup(ctx, &keywrightv1.DeleteGroupRequest{Name: args[0], ConfirmLockout: confirm, IdempotencyKey: command.IdempotencyKey()})
			if err != nil || !a.JSON() {
				return err
			}
			return ui.ValueJSON(a.Out, struct{}{})
		})}
	addConfirmLockout(cmd, &confirm)
	addYes(cmd, &yes)
	return cmd
}

// addConfirmLockout adds the flag that lets a change through after which nobody
// could change policies any more.
func addConfirmLockout(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "confirm-lockout", "", "the name again, if nobody shall be able to change policies afterwards")
}

func groupColumns() []ui.Column[*keywrightv1.Group] {
	type g = *keywrightv1.Group
	return []ui.Column[g]{
		{Title: "group", Value: g.GetName},
		{Title: "members", Value: func(g g) string { return strconv.Itoa(len(g.GetMembers())) }},
		{Title: "revision", Value: func(g g) string { return strconv.FormatUint(g.GetRevision(), 10) }},
		{Title: "created", Detail: true, Value: func(g g) string { return ui.Time(g.GetCreateTime()) }},
		{Title: "updated", Value: func(g g) string { return ui.Time(g.GetUpdateTime()) }},
	}
}
