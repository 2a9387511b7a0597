package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// maxBackup bounds a file that holds a backup.
const maxBackup = 64 << 20

const importHelp = `Bring keys of the transit engine of HashiCorp Vault or OpenBao to a namespace here,
with their names, versions and settings. What they encrypted, signed and MACed
before, the Vault-compatible API opens and verifies from then on.

Keys come from backups in files (--from, with - for standard input), each the text
that 'bao read -field=backup transit/backup/KEY' prints, or the whole answer in JSON,
or that to an export of encryption or signing keys, which has no HMAC keys and settings;
or live from the other server, by name or with --all. There a key must be exportable
and allow_plaintext_backup; --enable-backup sets both, for good.

No key that exists is touched, but one whose import ended early: the same command goes
on with it. --dry-run has the server check everything and changes nothing here.`

// importing is a run of the command.
type importing struct {
	app
	remote
	files               []string
	name                string
	all, enable, dryRun bool
}

func (a app) importVault() *cobra.Command {
	i := &importing{app: a}
	cmd := &cobra.Command{Use: "vault [KEY...] --namespace NAMESPACE", Short: "Import keys of a transit engine of HashiCorp Vault or OpenBao", Long: importHelp,
		Args: cobra.ArbitraryArgs, RunE: a.Run(i.run)}
	flags := cmd.Flags()
	flags.StringArrayVar(&i.files, "from", nil, "file that holds a key's backup; repeatable")
	flags.BoolVar(&i.all, "all", false, "all keys of the other server's engine")
	flags.BoolVar(&i.enable, "enable-backup", false, "let keys be backed up on the other server, where they cannot be yet")
	flags.StringVar(&i.name, "name", "", "name of the key here, if another; for one key")
	flags.BoolVar(&i.dryRun, "dry-run", false, "check everything, and change nothing here")
	i.remote.add(cmd)
	return cmd
}

// source is a key that is to be imported.
type source struct {
	label string // how the report calls it
	fetch func(context.Context) (string, error)
}

// outcome is a line of the report.
type outcome struct {
	Source   string `json:"source"`
	Key      string `json:"key,omitempty"`
	Type     string `json:"type,omitempty"`
	Versions string `json:"versions,omitempty"`
	Result   string `json:"result"`
	Reason   string `json:"reason,omitempty"`
}

// The results.
const (
	imported = "imported"
	checked  = "would be imported"
	exists   = "exists already"
	failed   = "failed"
)

func (i *importing) run(ctx context.Context, c *client.Client, names []string) error {
	namespace, err := i.NamespaceArgument(nil)
	if err != nil {
		return err
	}
	sources, err := i.sources(ctx, names)
	if err != nil {
		return err
	}
	if i.name != "" && len(sources) != 1 {
		return command.Usagef("--name is for one key, and there are %d", len(sources))
	}
	outcomes, missed := make([]outcome, 0, len(sources)), 0
	for n, s := range sources {
		if ui.IsTerminal(i.Err) {
			_, _ = fmt.Fprintf(i.Err, "\r\x1b[K%d of %d: %s", n+1, len(sources), ui.Line(s.label)) // a display that fails is no failure
		}
		o := i.importOne(ctx, c, namespace, s)
		if ctx.Err() != nil {
			break
		}
		if o.Result == failed || o.Result == exists {
			missed++
		}
		outcomes = append(outcomes, o)
	}
	if ui.IsTerminal(i.Err) {
		_, _ = fmt.Fprint(i.Err, "\r\x1b[K")
	}
	if err := i.report(outcomes); err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if missed > 0 {
		return fmt.Errorf("%d of %d keys were not imported", missed, len(sources))
	}
	return nil
}

// sources are the keys that the flags and arguments name.
func (i *importing) sources(ctx context.Context, names []string) (sources []source, err error) {
	if len(i.files) > 0 {
		if len(names) > 0 || i.all || i.enable {
			return nil, command.Usagef("--from takes backups from files; leave out key names, --all and --enable-backup")
		}
		for _, path := range i.files {
			sources = append(sources, source{path, func(context.Context) (string, error) { return i.readBackup(path) }})
		}
		return sources, nil
	}
	if (len(names) == 0) != i.all {
		return nil, command.Usagef("say which keys: by name, by --all, or their backups by --from")
	}
	t, err := i.open(i.Getenv)
	if err != nil {
		return nil, err
	}
	if i.all {
		if names, err = t.names(ctx); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		sources = append(sources, source{name, func(ctx context.Context) (string, error) { return t.backup(ctx, name, i.enable) }})
	}
	return sources, nil
}

func (i *importing) readBackup(path string) (string, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = ui.ReadAll(i.In, maxBackup)
	} else {
		text, err = ui.ReadFile(path, maxBackup)
	}
	if err != nil {
		return "", err
	}
	backup, err := parseBackup(text)
	if err != nil {
		err = fmt.Errorf("%s %w", path, err)
	}
	return backup, err
}

func (i *importing) importOne(ctx context.Context, c *client.Client, namespace string, s source) outcome {
	o := outcome{Source: s.label}
	backup, err := s.fetch(ctx)
	if err == nil {
		var k *keywrightv1.Key
		k, err = c.RestoreVaultKey(ctx, &keywrightv1.RestoreVaultKeyRequest{Namespace: namespace, Key: i.name, Backup: backup,
			ValidateOnly: i.dryRun, IdempotencyKey: command.IdempotencyKey()})
		if err == nil {
			o.Key, o.Type, o.Versions = k.GetNamespace()+"/"+k.GetName(), k.GetVault().GetType(), versions(k)
		}
	}
	answered, _ := errors.AsType[*client.Error](err)
	switch {
	case err == nil && i.dryRun:
		o.Result = checked
	case err == nil:
		o.Result = imported
	case answered != nil && answered.Code == codes.AlreadyExists:
		o.Result, o.Reason = exists, ui.Line(err.Error())
	default:
		o.Result, o.Reason = failed, ui.Line(err.Error())
	}
	return o
}

// versions are the versions that a key has, such as 3-17.
func versions(k *keywrightv1.Key) string {
	least, latest := max(k.GetVault().GetMinAvailableVersion(), 1), k.GetLatestVersion()
	if least == latest {
		return ui.Number(latest)
	}
	return ui.Number(least) + "-" + ui.Number(latest)
}

func (i *importing) report(outcomes []outcome) error {
	if i.JSON() {
		return ui.ValueJSON(i.Out, outcomes)
	}
	return ui.List(i.Out, []ui.Column[outcome]{
		{Title: "source", Value: func(o outcome) string { return o.Source }},
		{Title: "key", Value: func(o outcome) string { return o.Key }},
		{Title: "type", Value: func(o outcome) string { return o.Type }},
		{Title: "versions", Value: func(o outcome) string { return o.Versions }},
		{Title: "result", Value: func(o outcome) string { return strings.TrimSpace(o.Result + " " + parenthesis(o.Reason)) }},
	}, outcomes)
}

func parenthesis(text string) string {
	if text == "" {
		return ""
	}
	return "(" + text + ")"
}
