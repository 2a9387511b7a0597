package data

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const datakeyHelp = `Make a data key, or with --pair an asymmetric key pair, and print it wrapped and,
unless --without-plaintext is given, in plaintext, all as base64. 'keywright
decrypt' unwraps it. What goes to a file is written there in bytes (private keys
PKCS#8, public keys PEM) and not printed.`

func (a app) datakeyCommand() *cobra.Command {
	d := datakey{app: a}
	cmd := &cobra.Command{Use: "datakey NAMESPACE/KEY", Short: "Make a data key, wrapped under a key", Long: datakeyHelp, Args: command.Arguments(1, 1), RunE: a.RunKey(d.run)}
	flags := cmd.Flags()
	flags.Uint32Var(&d.size, "bytes", 0, "length of the data key, 1 to 1024; 32 if not given")
	flags.BoolVar(&d.wrappedOnly, "without-plaintext", false, "return the key only wrapped")
	flags.StringVar(&d.pair, "pair", "", "make a key pair of this asymmetric algorithm")
	flags.StringVar(&d.wrappedPath, "out", "", "file for the wrapped key, mode 0600")
	flags.StringVar(&d.plainPath, "plaintext-out", "", "file for the key in plaintext, mode 0600")
	flags.StringVar(&d.publicPath, "public-key-out", "", "file for the public key of a pair, PEM")
	d.binding.add(cmd, "", "the")
	return cmd
}

type datakey struct {
	app

	binding                            bindingFlags
	size                               uint32
	wrappedOnly                        bool
	pair                               string
	wrappedPath, plainPath, publicPath string
}

// part is one member of the answer and where it goes.
type part struct {
	name string
	data []byte
	path string // empty: printed
	pem  string // the PEM type it is written with; empty: in bytes
}

func (d *datakey) run(ctx context.Context, c *client.Client, namespace, key string) error {
	aad, err := d.binding.read()
	switch {
	case err != nil:
		return err
	case d.pair == "" && d.publicPath != "":
		return command.Usagef("--public-key-out goes with --pair")
	case d.pair != "" && d.size != 0:
		return command.Usagef("--bytes and --pair exclude each other")
	case d.wrappedOnly && d.plainPath != "":
		return command.Usagef("--without-plaintext and --plaintext-out exclude each other")
	case d.pair != "":
		return d.makePair(ctx, c, namespace, key, aad)
	}
	response, err := c.GenerateDataKey(ctx, &keywrightv1.GenerateDataKeyRequest{
		Namespace: namespace, Key: key, NumBytes: d.size, Aad: aad, EncryptionContext: d.binding.context, OmitPlaintext: d.wrappedOnly})
	if err != nil {
		return err
	}
	defer clear(response.GetPlaintext())
	return d.print(response.GetVersion(), []part{
		{name: "ciphertext", data: response.GetCiphertext(), path: d.wrappedPath},
		{name: "plaintext", data: response.GetPlaintext(), path: d.plainPath},
	})
}

func (d *datakey) makePair(ctx context.Context, c *client.Client, namespace, key string, aad []byte) error {
	response, err := c.GenerateDataKeyPair(ctx, &keywrightv1.GenerateDataKeyPairRequest{
		Namespace: namespace, Key: key, Algorithm: d.pair, Aad: aad, EncryptionContext: d.binding.context, OmitPlaintext: d.wrappedOnly})
	if err != nil {
		return err
	}
	defer clear(response.GetPrivateKey())
	return d.print(response.GetVersion(), []part{
		{name: "publicKey", data: response.GetPublicKey(), path: d.publicPath, pem: "PUBLIC KEY"},
		{name: "privateKeyCiphertext", data: response.GetPrivateKeyCiphertext(), path: d.wrappedPath},
		{name: "privateKey", data: response.GetPrivateKey(), path: d.plainPath},
	})
}

func (d *datakey) print(version uint32, parts []part) error {
	shown := map[string]any{"version": version}
	var table bytes.Buffer
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	row := func(name, value string) { _, _ = fmt.Fprintf(rows, "%s\t%s\n", name, value) } // a buffer takes all
	row("version", strconv.FormatUint(uint64(version), 10))
	for _, p := range parts {
		switch {
		case len(p.data) == 0:
		case p.path == "":
			shown[p.name] = p.data
			row(p.name, base64.StdEncoding.EncodeToString(p.data))
		default:
			if err := p.write(); err != nil {
				return err
			}
			shown[p.name+"File"] = p.path
			row(p.name, "in "+ui.Cell(p.path))
		}
	}
	if d.JSON() {
		return ui.ValueJSON(d.Out, shown)
	}
	_ = rows.Flush() // a buffer takes all
	_, err := d.Out.Write(table.Bytes())
	return err
}

func (p part) write() error {
	data := p.data
	if p.pem != "" {
		data = pem.EncodeToMemory(&pem.Block{Type: p.pem, Bytes: data})
	}
	return ui.WriteFile(p.path, data)
}

func (a app) randomCommand() *cobra.Command {
	var out outputFlags
	cmd := &cobra.Command{Use: "random BYTES", Short: "Get random bytes, 1 to 65536, from HSM and operating system", Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			size, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || size == 0 {
				return command.Usagef("the number of bytes must be 1 to 65536, not %q", args[0])
			}
			if err := a.refuseTerminal(out); err != nil {
				return err
			}
			namespace, err := a.NamespaceArgument(nil)
			if err != nil {
				return err
			}
			response, err := c.GenerateRandom(ctx, &keywrightv1.GenerateRandomRequest{Namespace: namespace, NumBytes: uint32(size)})
			if err != nil {
				return err
			}
			if a.JSON() && out.path == "" {
				return ui.JSON(a.Out, response)
			}
			return a.deliver(out, "data", response.GetData(), 0)
		})}
	out.add(cmd)
	out.addText(cmd, "write base64 text")
	return cmd
}
