package data

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const (
	// maxMessage bounds what is read to be sent to the server as it is, in bytes.
	// The server's own limit, 4 MiB unless configured otherwise, is usually lower.
	maxMessage = 64 << 20
	// maxSmallFile bounds files that hold an AAD, a signature or a MAC.
	maxSmallFile = 64 << 10
)

// outputFlags say where a command's data goes, and whether as base64.
type outputFlags struct {
	path string
	text bool
}

func (f *outputFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.path, "out", "", "file to write, whole or not at all, mode 0600; standard output if not given")
}

func (f *outputFlags) addText(cmd *cobra.Command, what string) {
	cmd.Flags().BoolVar(&f.text, "base64", false, what)
}

// refuseTerminal refuses, before anything is done, to write binary data to a terminal.
func (a app) refuseTerminal(f outputFlags) error {
	if f.path == "" && !f.text && !a.JSON() && ui.IsTerminal(a.Out) {
		return command.Usagef("%s, or --base64", ui.ErrBinary)
	}
	return nil
}

// deliver writes data where the flags say. As JSON it is the member named field,
// or, where the data goes to a file, "file" names that.
func (a app) deliver(f outputFlags, field string, data []byte, version uint32) error {
	if a.JSON() && f.path == "" {
		return ui.ValueJSON(a.Out, map[string]any{field: data, "version": version})
	}
	if err := write(f, a.Out, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
		return err
	}
	return a.report(f, version)
}

// report says as JSON what was written to a file.
func (a app) report(f outputFlags, version uint32) error {
	if !a.JSON() {
		return nil
	}
	return ui.ValueJSON(a.Out, map[string]any{"file": f.path, "version": version})
}

// write lets fill write the output and completes it only if fill succeeds.
func write(f outputFlags, stdout io.Writer, fill func(io.Writer) error) error {
	out, err := ui.Create(f.path, ui.TextOnly(stdout), f.text)
	if err != nil {
		return err
	}
	defer out.Discard()
	if err := fill(out); err != nil {
		return err
	}
	return out.Commit()
}

// bindingFlags bind a ciphertext to AAD or an encryption context.
type bindingFlags struct {
	aadFile string
	context command.Pairs
}

func (b *bindingFlags) add(cmd *cobra.Command, prefix, whose string) {
	cmd.Flags().StringVar(&b.aadFile, prefix+"aad-file", "", "file with "+whose+" additional authenticated data (AAD)")
	cmd.Flags().Var(&b.context, prefix+"context", "a pair of "+whose+" encryption context; repeatable")
}

// read returns the AAD; the encryption context is at hand already.
func (b *bindingFlags) read() (aad []byte, err error) {
	switch {
	case b.aadFile != "" && len(b.context) > 0:
		return nil, command.Usagef("AAD and an encryption context exclude each other; give one of them")
	case b.aadFile != "":
		return ui.ReadFile(b.aadFile, maxSmallFile)
	}
	return nil, nil
}

// source is what a data command works on.
type source struct {
	*ui.Input

	namespace, key string
	aad            []byte
	context        command.Pairs
}

// openSource reads the first argument, NAMESPACE/KEY, opens the input and reads the binding.
func (a app) openSource(ctx context.Context, args []string, in command.InputFlags, text bool, binding bindingFlags) (s source, err error) {
	if s.namespace, s.key, err = a.KeyName(args[0]); err != nil {
		return source{}, err
	}
	if s.aad, err = binding.read(); err != nil {
		return source{}, err
	}
	path, err := in.From(args, 1)
	if err != nil {
		return source{}, err
	}
	s.context = binding.context
	s.Input, err = ui.Open(ctx, path, a.In, text)
	return s, err
}

func (s source) dataKeyRequest(size uint32) *keywrightv1.GenerateDataKeyRequest {
	return &keywrightv1.GenerateDataKeyRequest{Namespace: s.namespace, Key: s.key, NumBytes: size, Aad: s.aad, EncryptionContext: s.context}
}

func (s source) decryptRequest(ciphertext []byte) *keywrightv1.DecryptRequest {
	return &keywrightv1.DecryptRequest{Namespace: s.namespace, Key: s.key, Ciphertext: ciphertext, Aad: s.aad, EncryptionContext: s.context}
}
