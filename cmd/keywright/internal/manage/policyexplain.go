package manage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const explainHelp = `Say why a request was allowed or denied, or would be: which policies decided, and
which came nearest to deciding otherwise and what kept them from it.

The request is an audit entry (--entry, --request-id), explained by the policies
of its time and by those of now, or one that is supposed (--principal, --action,
and a key, a namespace, or neither for the installation). With --change and
--delete, the policies of now are explained as they would be.`

// supposeFlags describe a request that nobody made.
type supposeFlags struct {
	request keywrightv1.SupposedRequest
	context command.Pairs
	time    string
}

func (f *supposeFlags) add(cmd *cobra.Command) {
	flags, r := cmd.Flags(), &f.request
	flags.StringVar(&r.Principal, "principal", "", `who asks, as policies name it, such as 'Token::"app"'`)
	flags.StringVar(&r.Action, "action", "", "what it asks for, such as Encrypt")
	flags.StringArrayVar(&r.Groups, "group", nil, "a group that its credentials claim; repeatable")
	flags.Var(&f.context, "context", "a pair of the encryption context; repeatable")
	flags.StringVar(&r.Source, "source", "", "the IP address it comes from")
	flags.StringVar(&r.Method, "method", "", "how it authenticates: mtls, token or unix")
	flags.StringVar(&f.time, "time", "", "when: a time (RFC 3339), or how long ago; now if not given")
}

func (f *supposeFlags) proto(a app, resource string) (request *keywrightv1.SupposedRequest, err error) {
	request = &f.request
	if request.Principal == "" || request.Action == "" {
		return nil, command.Usagef("give --entry, --request-id, or --principal and --action")
	}
	request.EncryptionContext = f.context
	if request.Time, err = moment("time", f.time); err != nil {
		return nil, err
	}
	request.Namespace, request.Key, err = a.resourceName(resource)
	return request, err
}

func (a app) policyExplain() *cobra.Command {
	var suppose supposeFlags
	var changes changeFlags
	var entry uint64
	var requestID string
	cmd := &cobra.Command{Use: "explain [KEY|NAMESPACE]", Short: "Say why a request was decided as it was, or would be", Long: explainHelp, Args: command.Arguments(0, 1)}
	cmd.RunE = a.Run(func(ctx context.Context, c *client.Client, args []string) (err error) {
		q := &keywrightv1.ExplainDecisionRequest{}
		if q.Changes, err = changes.proto(a); err != nil {
			return err
		}
		switch given := cmd.Flags().Changed; {
		case given("entry"):
			q.Subject = &keywrightv1.ExplainDecisionRequest_Entry{Entry: entry}
		case given("request-id"):
			if entry, err = entryOf(ctx, c, requestID); err != nil {
				return err
			}
			q.Subject = &keywrightv1.ExplainDecisionRequest_Entry{Entry: entry}
		default:
			supposed, err := suppose.proto(a, strings.Join(args, ""))
			if err != nil {
				return err
			}
			q.Subject = &keywrightv1.ExplainDecisionRequest_Supposed{Supposed: supposed}
		}
		explained, err := c.ExplainDecision(ctx, q)
		if err != nil {
			return err
		}
		return a.printExplained(explained)
	})
	flags := cmd.Flags()
	flags.Uint64Var(&entry, "entry", 0, "the sequence of an audit entry")
	flags.StringVar(&requestID, "request-id", "", "the request id of an audit entry")
	suppose.add(cmd)
	changes.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("entry", "request-id", "principal")
	return cmd
}

// entryOf finds the entry that tells how a request was decided: of a change its
// outcome, which comes last.
func entryOf(ctx context.Context, c *client.Client, requestID string) (uint64, error) {
	page, err := c.ListEntries(ctx, &keywrightv1.ListEntriesRequest{Filter: &keywrightv1.AuditFilter{RequestId: requestID}, PageSize: command.MaxPage, Newest: true})
	if err != nil {
		return 0, err
	}
	sequence, found := uint64(0), false
	for _, entry := range page.GetEntries() {
		var line auditLine
		if json.Unmarshal([]byte(entry.GetLine()), &line) == nil && line.Phase != "intent" {
			sequence, found = entry.GetSequence(), true
		}
	}
	if !found {
		return 0, &client.Error{Code: codes.NotFound, Message: fmt.Sprintf("the audit log has no entry of request %s that tells how it was decided", ui.Cell(requestID))}
	}
	return sequence, nil
}

func (a app) printExplained(e *keywrightv1.ExplainDecisionResponse) error {
	if a.JSON() {
		return ui.JSON(a.Out, e)
	}
	var out, now strings.Builder
	printExplanation(&out, e.GetExplanation(), "")
	if e.GetNow() != nil {
		printExplanation(&now, e.GetNow(), "")
	}
	if now.Len() > 0 && now.String() != out.String() { // another revision may say the same
		fmt.Fprintf(&out, "\nBy the policies of now:\n%s", now.String())
	}
	for _, caveat := range e.GetCaveats() {
		fmt.Fprintf(&out, "\nNote: %s.\n", ui.Cell(caveat))
	}
	_, err := io.WriteString(a.Out, out.String())
	return err
}

// printExplanation writes the decision first, then what led to it.
func printExplanation(w io.Writer, e *keywrightv1.Explanation, indent string) {
	fmt.Fprintf(w, "%s%s: %s\n", indent, decisionWord(e.GetDecision()), ui.Cell(e.GetReason()))
	for _, p := range e.GetPolicies() {
		fmt.Fprintf(w, "%s  %-13s  %s of %s\n", indent, p.GetResult(), p.GetEffect(), policyPlace(p))
		if p.GetFailedPart() == "" {
			continue
		}
		fmt.Fprintf(w, "%s    %s (line %d): %s\n", indent, failedPart(p), p.GetFailedLine(), ui.Cell(p.GetFailedText()))
		if p.GetDetail() != "" {
			fmt.Fprintf(w, "%s    but %s\n", indent, ui.Cell(p.GetDetail()))
		}
	}
	for _, bound := range e.GetBounds() {
		fmt.Fprintf(w, "%sBounded by %s:\n", indent, ui.Cell(bound.GetPrincipal()))
		printExplanation(w, bound, indent+"  ")
	}
}

func decisionWord(decision string) string {
	switch decision {
	case "allow":
		return "ALLOWED"
	case "deny":
		return "DENIED"
	default:
		return ui.Cell(decision)
	}
}

func failedPart(p *keywrightv1.ConsideredPolicy) string {
	switch part := p.GetFailedPart(); {
	case p.GetResult() == "erred":
		return part + " cannot be evaluated"
	case part == "unless":
		return "unless holds"
	case part == "when":
		return "when does not hold"
	default:
		return "another " + part
	}
}
