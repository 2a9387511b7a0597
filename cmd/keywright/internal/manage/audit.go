package manage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) auditCommand() *cobra.Command {
	return a.Group("audit", "Read, verify and prove the audit log", a.auditTail(), a.auditList(), a.auditSearch(), a.auditVerify(),
		a.auditCheckpoint(), a.auditProve(), a.auditCheckProof(), a.auditRotateKey())
}

// filterFlags choose audit entries.
type filterFlags struct {
	filter       keywrightv1.AuditFilter
	since, until string
}

func (f *filterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.filter.Principal, "principal", "", "only of this principal")
	flags.StringVar(&f.filter.Action, "action", "", "only of this action, such as Encrypt")
	flags.StringVar(&f.filter.Key, "key", "", "only of this key; its namespace is --namespace")
	flags.StringVar(&f.filter.Outcome, "outcome", "", "only of this outcome, such as OK or PERMISSION_DENIED")
	flags.StringVar(&f.filter.RequestId, "request-id", "", "only of this request")
	flags.StringVar(&f.filter.TokenId, "token-id", "", "only of the token with this public id")
}

func (f *filterFlags) addTimes(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.since, "since", "", "not before: a time (RFC 3339), or how long ago, such as 2h or 7d")
	cmd.Flags().StringVar(&f.until, "until", "", "before: as --since")
}

// proto completes the filter. The namespace counts only as a flag: the default
// one of the environment must not hide entries.
func (f *filterFlags) proto(a app) (filter *keywrightv1.AuditFilter, err error) {
	filter = &f.filter
	filter.Namespace = a.Namespace
	if filter.Since, err = moment("since", f.since); err != nil {
		return nil, err
	}
	if filter.Until, err = moment("until", f.until); err != nil {
		return nil, err
	}
	if filter.Since != nil && filter.Until != nil && !filter.Since.AsTime().Before(filter.Until.AsTime()) {
		return nil, command.Usagef("--until is not after --since, so there is nothing in between")
	}
	return filter, nil
}

func moment(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return timestamppb.New(at), nil
	}
	var ago command.Span
	if err := ago.Set(text); err != nil {
		return nil, command.Usagef("--%s must be a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h or 7d, not %q", flag, text)
	}
	return timestamppb.New(time.Now().Add(-ago.Duration)), nil
}

func (a app) auditList() *cobra.Command {
	return a.entriesCommand("list", "List entries of the audit log, oldest first", "", func(*keywrightv1.AuditFilter) error { return nil })
}

const searchHelp = `Search the audit log for what the flags say: caller, key, action, outcome, time,
request, token. The log has an index, so that not all of it is read.`

func (a app) auditSearch() *cobra.Command {
	return a.entriesCommand("search", "Search the audit log by caller, key, action, outcome, time or request", searchHelp, func(f *keywrightv1.AuditFilter) error {
		if proto.Equal(f, &keywrightv1.AuditFilter{}) {
			return command.Usagef("say what to search for; audit list shows the newest entries")
		}
		return nil
	})
}

// entriesCommand prints entries that a filter, which check accepts, lets through.
func (a app) entriesCommand(use, short, long string, check func(*keywrightv1.AuditFilter) error) *cobra.Command {
	var filter filterFlags
	var limit int
	var all bool
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			if limit < 1 || limit > command.MaxPage {
				return command.Usagef("--limit must be 1 to %d, not %d; --all lists everything", command.MaxPage, limit)
			}
			f, err := filter.proto(a)
			if err == nil {
				err = check(f)
			}
			if err != nil {
				return err
			}
			request := &keywrightv1.ListEntriesRequest{Filter: f, PageSize: int32(limit), Newest: true}
			if all {
				request.PageSize, request.Newest = command.MaxPage, false
			}
			if _, _, err := a.watchLog(ctx, c); err != nil {
				return err
			}
			return a.printPages(ctx, c, request)
		})}
	filter.add(cmd)
	filter.addTimes(cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "how many of the newest entries")
	cmd.Flags().BoolVar(&all, "all", false, "all entries")
	return cmd
}

// printPages prints each page as it comes: a log can be long. That there is nothing
// is said beside the output, since a name may have been mistyped.
func (a app) printPages(ctx context.Context, c *client.Client, request *keywrightv1.ListEntriesRequest) error {
	for found := false; ; {
		page, err := c.ListEntries(ctx, request)
		if err != nil {
			return err
		}
		for _, entry := range page.GetEntries() {
			if err := a.printEntry(entry); err != nil {
				return err
			}
		}
		found = found || len(page.GetEntries()) > 0
		if request.PageToken = page.GetNextPageToken(); request.PageToken != "" && !request.Newest {
			continue
		}
		if !found {
			_, _ = fmt.Fprintln(a.Err, "no entry matches; names are case-sensitive")
		}
		return nil
	}
}

func (a app) auditTail() *cobra.Command {
	var filter filterFlags
	var backlog uint16
	cmd := &cobra.Command{Use: "tail", Short: "Show entries of the audit log as they are written, until interrupted", Args: command.Arguments(0, 0),
		RunE: a.Run(func(ctx context.Context, c *client.Client, _ []string) error {
			f, err := filter.proto(a)
			if err != nil {
				return err
			}
			return a.tail(ctx, c, f, int32(backlog))
		})}
	filter.add(cmd)
	cmd.Flags().Uint16Var(&backlog, "backlog", 10, "begin this many entries back, at most 10000")
	return cmd
}

// resumeBacklog is how far back a stream begins that follows another: as far as
// the server goes, for what was written between them.
const resumeBacklog = 10_000

// tail prints entries, over one stream after the other: the server ends those on
// connections that have got old.
func (a app) tail(ctx context.Context, c *client.Client, f *keywrightv1.AuditFilter, backlog int32) error {
	next := uint64(0)
	for {
		stream, err := c.TailEntries(ctx, &keywrightv1.TailEntriesRequest{Filter: f, Backlog: backlog})
		if err != nil {
			return err
		}
		err = a.printStream(ctx, stream, &next)
		if ended, ok := errors.AsType[*client.Error](err); !ok || ended.Reason != "CONNECTION_AGED" {
			return err
		}
		backlog = resumeBacklog
	}
}

// printStream prints entries from number next on until the stream ends. Interrupting
// it is how a person ends it, and no failure.
func (a app) printStream(ctx context.Context, stream grpc.ServerStreamingClient[keywrightv1.AuditEntry], next *uint64) error {
	for ctx.Err() == nil {
		entry, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && entry.GetSequence() >= *next {
			err, *next = a.printEntry(entry), entry.GetSequence()+1
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// auditLine is what people see of an entry; docs/audit.md has all fields.
type auditLine struct {
	Time      time.Time `json:"time"`
	Phase     string    `json:"phase"`
	RequestID string    `json:"request_id"`
	Principal string    `json:"principal"`
	Action    string    `json:"action"`
	Namespace string    `json:"namespace"`
	Key       string    `json:"key"`
	Version   uint64    `json:"version"`
	Outcome   string    `json:"outcome"`
	Reason    string    `json:"reason"`
	Details   struct {
		Policy    string `json:"policy"`
		Principal string `json:"principal"` // of a new token
	} `json:"details"`
}

// printEntry prints the line as it stands in the log, or a short form of it.
func (a app) printEntry(entry *keywrightv1.AuditEntry) error {
	var line auditLine
	if err := json.Unmarshal([]byte(entry.GetLine()), &line); a.JSON() || err != nil {
		_, err := fmt.Fprintln(a.Out, entry.GetLine())
		return err
	}
	fields := []string{strconv.FormatUint(entry.GetSequence(), 10), line.Time.UTC().Format(time.RFC3339), ui.Cell(cmp.Or(line.Outcome, line.Phase)),
		ui.Cell(line.Action), line.resource(), ui.Cell(line.Principal), ui.Cell(line.RequestID)}
	if line.Reason != "" {
		fields = append(fields, ui.Cell(line.Reason))
	}
	_, err := fmt.Fprintln(a.Out, strings.Join(fields, "  "))
	return err
}

func (l auditLine) resource() string {
	name := ui.Cell(l.Namespace)
	if l.Key != "" {
		name += "/" + ui.Cell(l.Key)
	}
	if l.Version > 0 {
		name += " v" + strconv.FormatUint(l.Version, 10)
	}
	switch {
	case l.Details.Policy != "":
		name += " policy " + ui.Cell(l.Details.Policy)
	case l.Details.Principal != "":
		name += " for " + ui.Cell(l.Details.Principal)
	}
	return name
}
