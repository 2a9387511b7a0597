package manage

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) policyDiff() *cobra.Command {
	var changes changeFlags
	var since, until string
	cmd := &cobra.Command{Use: "diff", Short: "Show which audited requests would be decided otherwise after a change",
		Long: "Decide the requests of the audit log again, by the policies of now and as they\nwould be with --change and --delete, and show those decided otherwise. Nothing is\nchanged.",
		Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) (err error) {
			q := &keywrightv1.DiffPoliciesRequest{}
			if q.Changes, err = changes.proto(a); err != nil {
				return err
			}
			if len(q.Changes) == 0 {
				return command.Usagef("give --change or --delete")
			}
			if q.Since, err = moment("since", since); err != nil {
				return err
			}
			if q.Until, err = moment("until", until); err != nil {
				return err
			}
			diff, err := c.DiffPolicies(ctx, q)
			if err != nil {
				return err
			}
			return a.printDiff(diff)
		})}
	changes.add(cmd)
	cmd.Flags().StringVar(&since, "since", "", "requests not before: a time (RFC 3339), or how long ago, such as 2h or 7d; a day ago if not given")
	cmd.Flags().StringVar(&until, "until", "", "requests before: as --since")
	return cmd
}

func (a app) printDiff(d *keywrightv1.DiffPoliciesResponse) error {
	if a.JSON() {
		return ui.JSON(a.Out, d)
	}
	if len(d.GetChanged()) > 0 {
		if err := ui.List(a.Out, diffColumns(), d.GetChanged()); err != nil {
			return err
		}
	}
	summary := fmt.Sprintf("%d decisions change, of %d audited requests.\n", countOf(d.GetChanged()), d.GetEntries())
	for _, reason := range slices.Sorted(maps.Keys(d.GetUndecidable())) {
		summary += fmt.Sprintf("%d cannot be decided again: %s.\n", d.GetUndecidable()[reason], ui.Cell(reason))
	}
	if d.GetTruncated() {
		summary += "More change than are listed.\n"
	}
	_, err := fmt.Fprint(a.Out, summary)
	return err
}

func countOf(changed []*keywrightv1.ChangedDecision) (n uint64) {
	for _, c := range changed {
		n += c.GetCount()
	}
	return n
}

func diffColumns() []ui.Column[*keywrightv1.ChangedDecision] {
	type c = *keywrightv1.ChangedDecision
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return []ui.Column[c]{
		{Title: "count", Value: func(c c) string { return number(c.GetCount()) }},
		{Title: "principal", Value: c.GetPrincipal},
		{Title: "action", Value: c.GetAction},
		{Title: "on", Value: func(c c) string { return strings.Trim(c.GetNamespace()+"/"+c.GetKey(), "/") }},
		{Title: "before", Value: c.GetBefore},
		{Title: "after", Value: c.GetAfter},
		{Title: "first entry", Value: func(c c) string { return number(c.GetEntry()) }},
		{Title: "reason", Value: c.GetReason},
	}
}
