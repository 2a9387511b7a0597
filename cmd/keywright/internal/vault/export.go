package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const exportHelp = `Take a key of VAULT framing to a transit engine of OpenBao or HashiCorp Vault, with all
its versions and settings: as a backup in a file, for transit's restore, or live into
the engine of --vault-address.

The backup holds the key in plaintext. Only a key that is exportable and
allow_plaintext_backup has one, in a namespace that was created with
--plaintext-export; that it was taken is in the audit log.`

// exporting is a run of the command.
type exporting struct {
	app
	remote
	out, name, dialect string
}

func (a app) exportVault() *cobra.Command {
	e := &exporting{app: a}
	cmd := &cobra.Command{Use: "vault NAMESPACE/KEY", Short: "Take a key to a transit engine of OpenBao or HashiCorp Vault", Long: exportHelp,
		Args: command.Arguments(1, 1), RunE: a.RunKey(e.run)}
	flags := cmd.Flags()
	flags.StringVar(&e.out, "out", "", "file to write the backup to, mode 0600; it must not exist")
	flags.StringVar(&e.name, "name", "", "name of the key on the other server, if another")
	flags.StringVar(&e.dialect, "dialect", "openbao", "openbao or vault: which of them will read it")
	e.remote.add(cmd)
	return cmd
}

func (e *exporting) run(ctx context.Context, c *client.Client, namespace, key string) error {
	if e.dialect != "openbao" && e.dialect != "vault" {
		return command.Usagef("--dialect must be openbao or vault, not %q", e.dialect)
	}
	var to *transit
	var err error
	if e.out == "" {
		to, err = e.open(e.Getenv)
	} else if _, missing := os.Lstat(e.out); !errors.Is(missing, fs.ErrNotExist) {
		err = errors.Join(missing, fmt.Errorf("%s exists already, and is not overwritten; give another name", e.out))
	}
	if err != nil { // before the key leaves
		return err
	}
	answer, err := c.BackupVaultKey(ctx, &keywrightv1.BackupVaultKeyRequest{Namespace: namespace, Key: key, Hashicorp: e.dialect == "vault"})
	if err != nil {
		return err
	}
	where := e.out
	if to == nil {
		err = writeNew(e.out, answer.GetBackup())
	} else {
		where = first(e.name, key)
		err = to.restore(ctx, where, answer.GetBackup())
	}
	if err == nil {
		_, err = fmt.Fprintf(e.Err, "%s/%s is now also in plaintext in %s\n", namespace, key, where)
	}
	return err
}

// writeNew writes a file that did not exist, durably. On an error nothing is left of it.
func writeNew(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
