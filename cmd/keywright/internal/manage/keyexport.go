package manage

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// maxPublicKey bounds a file that holds a public key.
const maxPublicKey = 64 << 10

const exportHelp = `Export a version of a key that was created exportable, wrapped to an RSA public
key, PEM or DER: RSA-OAEP with SHA-256 of an AES-256 key, and behind it the key,
wrapped under that by AES key wrap with padding (RFC 5649). docs/import.md shows
how to unwrap it with openssl.`

func (a app) keyExport() *cobra.Command {
	var version uint32
	var to, out string
	var text bool
	cmd := &cobra.Command{Use: "export NAMESPACE/KEY --to-public-key FILE", Short: "Export a version of an exportable key, wrapped to a public key", Long: exportHelp,
		Args: command.Arguments(1, 1),
		RunE: a.RunKey(func(ctx context.Context, c *client.Client, namespace, key string) error {
			switch {
			case to == "":
				return command.Usagef("say by --to-public-key to whom the key is to be wrapped")
			case out == "" && !text && !a.JSON() && ui.IsTerminal(a.Out):
				return command.Usagef("%s, or --base64", ui.ErrBinary)
			}
			public, err := ui.ReadFile(to, maxPublicKey)
			if err != nil {
				return err
			}
			exported, err := c.ExportKey(ctx, &keywrightv1.ExportKeyRequest{Namespace: namespace, Key: key, Version: version, PublicKey: public})
			if err != nil {
				return err
			}
			if a.JSON() && out == "" {
				return ui.JSON(a.Out, exported)
			}
			return a.deliverExported(exported, out, text)
		})}
	command.AddVersion(cmd, &version, "the version; the primary one if not given")
	cmd.Flags().StringVar(&to, "to-public-key", "", "file with the RSA public key of whom it is for")
	cmd.Flags().StringVar(&out, "out", "", "file to write, mode 0600; standard output if not given")
	cmd.Flags().BoolVar(&text, "base64", false, "write base64 text")
	return cmd
}

// deliverExported writes what is wrapped; what else there is to say of it goes
// beside it.
func (a app) deliverExported(exported *keywrightv1.ExportKeyResponse, path string, text bool) error {
	out, err := ui.Create(path, a.Out, text)
	if err != nil {
		return err
	}
	defer out.Discard()
	if _, err := out.Write(exported.GetWrappedKey()); err != nil {
		return err
	}
	if err := out.Commit(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.Err, "version %d (%s), wrapped with %s\n", exported.GetVersion(), exported.GetAlgorithm(), exported.GetMethod())
	return err
}

// namespaceOrKey reads NAMESPACE or NAMESPACE/KEY.
func namespaceOrKey(text string) (namespace, key string, err error) {
	namespace, key, slash := strings.Cut(text, "/")
	if namespace == "" || slash && (key == "" || strings.Contains(key, "/")) {
		return "", "", command.Usagef("%q is neither NAMESPACE nor NAMESPACE/KEY", text)
	}
	return namespace, key, nil
}
