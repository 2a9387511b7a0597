package manage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/verify"
)

func (a app) auditVerify() *cobra.Command {
	var key, kept string
	cmd := &cobra.Command{Use: "verify DIR", Short: "Verify the files of an audit log, without a server",
		Long: `Verify the files of an audit log, without a server: that the lines are those
that were signed, from the first to the last checkpoint. If they are not, the
first entry concerned is named and the exit code is 1. What is newer than the
last checkpoint is counted, not verified.`,
		Args: command.Arguments(1, 1),
		RunE: a.Local(func(ctx context.Context, args []string) error {
			options, err := verifyOptions(key, kept)
			if err != nil {
				return err
			}
			return a.verifyLog(ctx, args[0], options)
		})}
	cmd.Flags().StringVar(&key, "key", "", "a key of the log that you trust: name+id+base64, or a file that holds it; without it the log's own word is taken")
	cmd.Flags().StringVar(&kept, "checkpoint", "", "file with a checkpoint of the log that was kept elsewhere, with which it must agree")
	return cmd
}

// verifyOptions reads what is known of the log from elsewhere.
func verifyOptions(key, kept string) (o verify.Options, err error) {
	if key != "" {
		if o.Key, err = trustedKey(key); err != nil {
			return o, err
		}
	}
	if kept != "" {
		o.Checkpoint, err = readNote(kept)
	}
	return o, err
}

// trustedKey parses a verifier key, or the one in a file.
func trustedKey(value string) (*checkpoint.Key, error) {
	key, err := checkpoint.ParseKey(value)
	if err == nil {
		return &key, nil
	}
	text, readErr := readNote(value)
	if errors.Is(readErr, os.ErrNotExist) {
		return nil, command.Usagef("--key must be a key (name+id+base64) or a file that holds one: %v", err)
	}
	if readErr != nil {
		return nil, readErr
	}
	if key, err = checkpoint.ParseKey(strings.TrimSpace(string(text))); err != nil {
		return nil, command.Usagef("--key: %s holds no key: %v", value, err)
	}
	return &key, nil
}

// readNote reads a small file.
func readNote(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(file, checkpoint.MaxNote+1))
}

func (a app) verifyLog(ctx context.Context, dir string, o verify.Options) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	progress, end := ui.Meter(a.Err, "verifying")
	o.Progress = progress
	report, err := verify.Dir(ctx, dir, o)
	end()
	found, isFinding := errors.AsType[*verify.Finding](err)
	if err != nil && !isFinding {
		return err
	}
	if !report.Trusted && report.Key != "" {
		_, _ = fmt.Fprintf(a.Err, "No --key was given, so the log's own first key is believed:\n%s\nCompare it with a copy that was kept elsewhere.\n", report.Key)
	}
	if a.JSON() {
		err = a.printVerification(report, found)
	} else if !isFinding {
		err = ui.Describe(a.Out, reportColumns(), report)
	}
	if err == nil && isFinding {
		return found
	}
	return err
}

func reportColumns() []ui.Column[verify.Report] {
	type r = verify.Report
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	some := func(n uint64, what string) string { // nothing for none
		if n == 0 {
			return ""
		}
		return number(n) + what
	}
	return []ui.Column[r]{
		{Title: "log", Value: func(r r) string { return r.Origin }},
		{Title: "result", Value: func(r r) string { return "the first " + number(r.Signed) + " entries are those that were signed" }},
		{Title: "read", Value: func(r r) string { return number(r.Lines) + " entries" }},
		{Title: "dropped", Value: func(r r) string { return some(r.First, " entries before, whose hashes lead to the signed root") }},
		{Title: "unsigned", Value: func(r r) string { return some(r.Unsigned, " newer entries, which nothing protects yet") }},
		{Title: "kept checkpoint", Value: keptText},
		{Title: "hashes", Value: func(r r) string {
			if r.TreeDiffers {
				return "the file tree is damaged; remove it while the server is stopped, which makes it anew"
			}
			if r.TreeLacks {
				return "the file tree lacks those of signed entries; the server makes them anew at its next start"
			}
			return "ok"
		}},
	}
}

func keptText(r verify.Report) string {
	if r.Kept == 0 {
		return ""
	}
	return fmt.Sprintf("agrees, with %d entries", r.Kept)
}

// verification is the result as JSON.
type verification struct {
	Sound       bool     `json:"sound"`
	Origin      string   `json:"origin,omitempty"`
	Key         string   `json:"key,omitempty"`
	KeyGiven    bool     `json:"key_given"`
	First       uint64   `json:"first"`
	Read        uint64   `json:"read"`
	Signed      uint64   `json:"signed"`
	Unsigned    uint64   `json:"unsigned"`
	Epoch       uint64   `json:"epoch"`
	Kept        uint64   `json:"kept,omitempty"`
	TreeDiffers bool     `json:"tree_differs,omitempty"`
	TreeLacks   bool     `json:"tree_lacks,omitempty"`
	Finding     *finding `json:"finding,omitempty"`
}

type finding struct {
	Kind   verify.Kind `json:"kind"`
	Entry  uint64      `json:"entry"`
	File   string      `json:"file,omitempty"`
	Reason string      `json:"reason"`
}

func (a app) printVerification(r verify.Report, found *verify.Finding) error {
	v := verification{
		Sound: found == nil, Origin: r.Origin, Key: r.Key, KeyGiven: r.Trusted, First: r.First, Read: r.Lines, Signed: r.Signed,
		Unsigned: r.Unsigned, Epoch: r.Epoch, Kept: r.Kept, TreeDiffers: r.TreeDiffers, TreeLacks: r.TreeLacks,
	}
	if found != nil {
		v.Finding = &finding{found.Kind, found.Entry, found.File, found.Reason}
	}
	encoder := json.NewEncoder(a.Out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
