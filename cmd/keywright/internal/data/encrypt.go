package data

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/envelope"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// maxNative is the largest input that is sent to the server to be encrypted, in
// bytes; what is larger is encrypted here under a data key.
const maxNative = 64 << 10

const encryptHelp = `Encrypt FILE or standard input.

Up to 64 KiB go to the server, which returns a ciphertext. More, or with
--envelope any input, is encrypted here under a fresh data key that the server
wraps. 'keywright decrypt' opens both. Plaintext is never taken from arguments,
which other users of the machine can see.`

func (a app) encryptCommand() *cobra.Command {
	e := encryption{app: a}
	cmd := &cobra.Command{Use: "encrypt NAMESPACE/KEY [FILE]", Short: "Encrypt a file or standard input", Long: encryptHelp, Args: command.Arguments(1, 2), RunE: a.Run(e.run)}
	e.in.Add(cmd)
	e.out.add(cmd)
	e.out.addText(cmd, "write base64 text")
	e.binding.add(cmd, "", "the")
	cmd.Flags().BoolVar(&e.envelope, "envelope", false, "encrypt here under a data key, whatever the size")
	return cmd
}

type encryption struct {
	app

	in       command.InputFlags
	out      outputFlags
	binding  bindingFlags
	envelope bool
}

func (e *encryption) run(ctx context.Context, c *client.Client, args []string) error {
	if err := e.refuseTerminal(e.out); err != nil {
		return err
	}
	s, err := e.openSource(ctx, args, e.in, false, e.binding)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // it was only read
	head, err := ui.ReadAll(io.LimitReader(s, maxNative+1), maxNative+1)
	if err != nil {
		return err
	}
	if e.envelope || len(head) > maxNative {
		s.Reader = io.MultiReader(bytes.NewReader(head), s.Reader)
		return e.seal(ctx, c, s)
	}
	response, err := c.Encrypt(ctx, &keywrightv1.EncryptRequest{
		Namespace: s.namespace, Key: s.key, Plaintext: head, Aad: s.aad, EncryptionContext: s.context})
	if err != nil {
		return err
	}
	return e.deliver(e.out, "ciphertext", response.GetCiphertext(), response.GetVersion())
}

func (e *encryption) seal(ctx context.Context, c *client.Client, s source) error {
	if err := e.needFile(e.out); err != nil {
		return err
	}
	dataKey, err := c.GenerateDataKey(ctx, s.dataKeyRequest(envelope.KeySize))
	if err != nil {
		return err
	}
	defer clear(dataKey.GetPlaintext())
	in, done := ui.Progress(s, s.Size, e.Err, "encrypting")
	defer done()
	err = write(e.out, e.Out, func(w io.Writer) error {
		if err := envelope.WriteHeader(w, dataKey.GetCiphertext()); err != nil {
			return err
		}
		return envelope.Seal(w, in, dataKey.GetPlaintext())
	})
	if err != nil {
		return err
	}
	return e.report(e.out, dataKey.GetVersion())
}

// needFile refuses to put data of any size into a JSON document.
func (a app) needFile(f outputFlags) error {
	if a.JSON() && f.path == "" {
		return command.Usagef("-o json holds ciphertexts of up to %d bytes of plaintext and no envelopes; give --out FILE for the data", maxNative)
	}
	return nil
}

const decryptHelp = `Decrypt what 'keywright encrypt' made, or a ciphertext of the API.

With --out, the file appears only when all of it was verified. To standard
output, each mebibyte of an envelope is verified before it is written, but that
an envelope was cut shows only at its end: use what came out only if the exit
code is 0.`

func (a app) decryptCommand() *cobra.Command {
	d := decryption{app: a}
	cmd := &cobra.Command{Use: "decrypt NAMESPACE/KEY [FILE]", Short: "Decrypt a file or standard input", Long: decryptHelp, Args: command.Arguments(1, 2), RunE: a.Run(d.run)}
	d.in.Add(cmd)
	d.out.add(cmd)
	cmd.Flags().BoolVar(&d.text, "base64", false, "the input is base64 text")
	d.binding.add(cmd, "", "the")
	return cmd
}

type decryption struct {
	app

	in      command.InputFlags
	out     outputFlags
	text    bool
	binding bindingFlags
}

func (d *decryption) run(ctx context.Context, c *client.Client, args []string) error {
	s, err := d.openSource(ctx, args, d.in, d.text, d.binding)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // it was only read
	enveloped, err := s.detect()
	if err != nil {
		return err
	}
	if enveloped {
		return d.open(ctx, c, s)
	}
	ciphertext, err := ui.ReadAll(s, maxMessage)
	if err != nil {
		return err
	}
	response, err := c.Decrypt(ctx, s.decryptRequest(ciphertext))
	if err != nil {
		return err
	}
	return d.deliver(d.out, "plaintext", response.GetPlaintext(), response.GetVersion())
}

// detect reports whether the input is an envelope; nothing of the input is lost.
func (s *source) detect() (bool, error) {
	head := make([]byte, envelope.PrefixSize)
	n, err := io.ReadFull(s.Reader, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	s.Reader = io.MultiReader(bytes.NewReader(head[:n]), s.Reader)
	return envelope.Detect(head[:n]), nil
}

func (d *decryption) open(ctx context.Context, c *client.Client, s source) error {
	if err := d.needFile(d.out); err != nil {
		return err
	}
	wrapped, err := envelope.ReadHeader(s)
	if err != nil {
		return err
	}
	dataKey, err := c.Decrypt(ctx, s.decryptRequest(wrapped))
	if err != nil {
		return err
	}
	defer clear(dataKey.GetPlaintext())
	if len(dataKey.GetPlaintext()) != envelope.KeySize {
		return envelope.ErrAuthentication
	}
	in, done := ui.Progress(s, s.Size, d.Err, "decrypting")
	defer done()
	if err := write(d.out, d.Out, func(w io.Writer) error { return envelope.Open(w, in, dataKey.GetPlaintext()) }); err != nil {
		return err
	}
	return d.report(d.out, dataKey.GetVersion())
}
