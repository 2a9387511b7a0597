package data

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/envelope"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const reencryptHelp = `Decrypt a ciphertext and encrypt it again, under the primary version of the same
key or under another key, without the plaintext ever leaving the server. Of an
envelope only the data key is wrapped anew; the data stays as it is.

AAD or encryption context stay the same unless --to-aad-file, --to-context or
--to-unbound says otherwise. --out may name the input file.`

func (a app) reencryptCommand() *cobra.Command {
	r := reencryption{app: a}
	cmd := &cobra.Command{Use: "reencrypt NAMESPACE/KEY [FILE]", Short: "Encrypt a ciphertext again, under a newer version or another key", Long: reencryptHelp, Args: command.Arguments(1, 2), RunE: a.Run(r.run)}
	r.in.Add(cmd)
	r.out.add(cmd)
	r.out.addText(cmd, "read and write base64 text")
	r.binding.add(cmd, "", "the")
	r.toBinding.add(cmd, "to-", "the new")
	cmd.Flags().BoolVar(&r.unbound, "to-unbound", false, "bind the new ciphertext to nothing")
	cmd.Flags().StringVar(&r.to, "to", "", "destination, NAMESPACE/KEY; the same key if not given")
	return cmd
}

type reencryption struct {
	app

	in                 command.InputFlags
	out                outputFlags
	binding, toBinding bindingFlags
	unbound            bool
	to                 string
}

func (r *reencryption) run(ctx context.Context, c *client.Client, args []string) error {
	if err := r.refuseTerminal(r.out); err != nil {
		return err
	}
	s, err := r.openSource(ctx, args, r.in, r.out.text, r.binding)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // it was only read
	request, err := r.request(s)
	if err != nil {
		return err
	}
	enveloped, err := s.detect()
	if err != nil {
		return err
	}
	if enveloped {
		return r.rewrap(ctx, c, s, request)
	}
	if request.Ciphertext, err = ui.ReadAll(s, maxMessage); err != nil {
		return err
	}
	response, err := c.ReEncrypt(ctx, request)
	if err != nil {
		return err
	}
	return r.deliver(r.out, "ciphertext", response.GetCiphertext(), response.GetDestinationVersion())
}

func (r *reencryption) request(s source) (request *keywrightv1.ReEncryptRequest, err error) {
	request = &keywrightv1.ReEncryptRequest{Namespace: s.namespace, Key: s.key, Aad: s.aad, EncryptionContext: s.context}
	if r.to != "" {
		if request.DestinationNamespace, request.DestinationKey, err = r.KeyName(r.to); err != nil {
			return nil, err
		}
	}
	if request.DestinationAad, err = r.toBinding.read(); err != nil {
		return nil, err
	}
	request.DestinationEncryptionContext = r.toBinding.context
	rebound := r.toBinding.aadFile != "" || len(r.toBinding.context) > 0
	switch {
	case rebound && r.unbound:
		return nil, command.Usagef("--to-unbound excludes --to-aad-file and --to-context")
	case !rebound && !r.unbound:
		request.DestinationAad, request.DestinationEncryptionContext = s.aad, s.context
	}
	return request, nil
}

func (r *reencryption) rewrap(ctx context.Context, c *client.Client, s source, request *keywrightv1.ReEncryptRequest) (err error) {
	if err := r.needFile(r.out); err != nil {
		return err
	}
	if request.Ciphertext, err = envelope.ReadHeader(s); err != nil {
		return err
	}
	response, err := c.ReEncrypt(ctx, request)
	if err != nil {
		return err
	}
	in, done := ui.Progress(s, s.Size, r.Err, "copying")
	defer done()
	err = write(r.out, r.Out, func(w io.Writer) error {
		if err := envelope.WriteHeader(w, response.GetCiphertext()); err != nil {
			return err
		}
		_, err := io.Copy(w, in)
		return err
	})
	if err != nil {
		return err
	}
	return r.report(r.out, response.GetDestinationVersion())
}
