package manage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/keyfile"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	"github.com/keywright/keywright/kms/keywrap"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// ownParametersTTL is how long the wrapping key of an import that is made and used
// at once is there, should it come to nothing.
const ownParametersTTL = 10 * time.Minute

const importHelp = `Import a key from a file: PEM (PKCS#8, PKCS#1 or SEC1), PKCS#8 in DER, a JSON
Web Key, or the raw bytes of a symmetric key. It is wrapped here to a key that the
server's HSM makes for it; it leaves this machine in no other form.

With --as-version it becomes a new version of a key that exists. With --wrapped it
is material that was wrapped elsewhere, to the public key that
'keywright key import-parameters' gave.`

// keyImport is a run of the command.
type keyImport struct {
	app

	from, format       string
	wrapped, job       string
	algorithm          string
	protection         string
	labels             command.Pairs
	rotation           rotationFlags
	exportable         bool
	asVersion, primary bool
	protectionLevel    keywrightv1.ProtectionLevel
	namespace, key     string
	wrappedKey         []byte
}

func (a app) keyImport() *cobra.Command {
	i := &keyImport{app: a}
	cmd := &cobra.Command{Use: "import NAMESPACE/KEY --from FILE", Short: "Import a key, or a version of a key, from a file", Long: importHelp,
		Args: command.Arguments(1, 1), RunE: a.RunKey(i.run)}
	flags := cmd.Flags()
	flags.StringVar(&i.from, "from", "", "file that holds the key; - is standard input")
	flags.StringVar(&i.format, "format", string(keyfile.Auto), "how it does: auto, pem, der, jwk or raw")
	flags.StringVar(&i.algorithm, "algorithm", "", "what the key is for, one that 'keywright algorithms' lists")
	flags.StringVar(&i.protection, "protection", "", "SOFTWARE or HSM; SOFTWARE if not given")
	flags.BoolVar(&i.asVersion, "as-version", false, "make it a new version of a key that exists")
	flags.BoolVar(&i.primary, "primary", false, "with --as-version: also make it the primary version")
	flags.BoolVar(&i.exportable, "exportable", false, "let the key be exported, wrapped, for ever")
	flags.Var(&i.labels, "label", "a label; repeatable")
	flags.StringVar(&i.wrapped, "wrapped", "", "file that holds a key that is wrapped already")
	flags.StringVar(&i.job, "import-job", "", "with --wrapped: the import job whose public key it is wrapped to")
	i.rotation.add(cmd)
	return cmd
}

func (i *keyImport) run(ctx context.Context, c *client.Client, namespace, key string) error {
	if err := i.check(); err != nil {
		return err
	}
	i.namespace, i.key = namespace, key
	if i.wrapped != "" {
		var err error
		if i.wrappedKey, err = ui.ReadFile(i.wrapped, keywrap.MaxWrapped); err != nil {
			return err
		}
	} else if err := i.wrap(ctx, c); err != nil {
		return err
	}
	if i.asVersion {
		return i.showVersion(c.ImportKeyVersion(ctx, &keywrightv1.ImportKeyVersionRequest{Namespace: namespace, Key: key, ImportJob: i.job,
			WrappedKey: i.wrappedKey, MakePrimary: i.primary, IdempotencyKey: command.IdempotencyKey()}))
	}
	rotation, err := i.rotation.Proto()
	if err != nil {
		return err
	}
	return i.showKey(c.ImportKey(ctx, &keywrightv1.ImportKeyRequest{Namespace: namespace, Key: key, ImportJob: i.job, WrappedKey: i.wrappedKey,
		Labels: i.labels, Rotation: rotation, Exportable: i.exportable, IdempotencyKey: command.IdempotencyKey()}))
}

func (i *keyImport) check() (err error) {
	switch {
	case (i.from == "") == (i.wrapped == ""):
		return command.Usagef("say what to import: a key by --from, or one that is wrapped already by --wrapped")
	case (i.wrapped == "") != (i.job == ""):
		return command.Usagef("--wrapped and --import-job go together")
	case i.wrapped != "" && (i.algorithm != "" || i.protection != ""):
		return command.Usagef("--algorithm and --protection are the import job's already; leave them out with --wrapped")
	case i.from != "" && i.algorithm == "" && !i.asVersion:
		return command.Usagef("say by --algorithm what the key is for; 'keywright algorithms' lists them")
	case i.primary && !i.asVersion:
		return command.Usagef("--primary goes with --as-version; a new key's version is primary anyway")
	case i.asVersion && (i.exportable || len(i.labels) > 0 || i.rotation.period.Given || i.rotation.uses > 0):
		return command.Usagef("--exportable, --label and --rotation-… are of a new key; leave them out with --as-version")
	}
	if _, err := keyfile.ParseFormat(i.format); err != nil {
		return command.Usagef("--format %s", err)
	}
	i.protectionLevel, err = enum[keywrightv1.ProtectionLevel]("protection", i.protection, keywrightv1.ProtectionLevel_value)
	return err
}

// wrap reads the key and wraps it to a key that the HSM makes for it.
func (i *keyImport) wrap(ctx context.Context, c *client.Client) error {
	material, err := i.read(ctx)
	if err != nil {
		return err
	}
	defer clear(material)
	parameters, err := c.GetImportParameters(ctx, &keywrightv1.GetImportParametersRequest{Namespace: i.namespace, Key: i.key, Algorithm: i.algorithm,
		ProtectionLevel: i.protectionLevel, Ttl: durationpb.New(ownParametersTTL), SingleUse: true, IdempotencyKey: command.IdempotencyKey()})
	if err != nil {
		return err
	}
	to, err := keywrap.ParsePublicKey([]byte(parameters.GetPublicKeyPem()))
	if err != nil {
		return fmt.Errorf("the server's wrapping key: %w", err)
	}
	hash, ok := keywrap.ParseHash(parameters.GetOaepHash())
	if !ok {
		return fmt.Errorf("the server wants OAEP with %q, which this program does not do; use a newer one", parameters.GetOaepHash())
	}
	i.job = parameters.GetImportJob()
	i.wrappedKey, err = keywrap.Wrap(to, hash, material)
	if errors.Is(err, keywrap.ErrSize) {
		return fmt.Errorf("%s holds no key: %w", i.from, err)
	}
	return err
}

func (i *keyImport) read(ctx context.Context) ([]byte, error) {
	in, err := ui.Open(ctx, i.from, i.In, false)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // it was only read
	content, err := ui.ReadAll(in, keyfile.MaxSize)
	defer clear(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.from, err)
	}
	material, err := keyfile.Parse(content, keyfile.Format(i.format))
	if err != nil {
		return nil, fmt.Errorf("%s %w", i.from, err)
	}
	return material, nil
}

const parametersHelp = `Have the server's HSM make an RSA key to wrap keys to that are to be imported, and
print its public key, PEM. docs/import.md shows how to wrap with openssl.`

func (a app) keyImportParameters() *cobra.Command {
	var algorithm, protection, out string
	var validFor command.Span
	var once bool
	cmd := &cobra.Command{Use: "import-parameters {NAMESPACE | NAMESPACE/KEY}", Short: "Get a public key to wrap keys to that are to be imported", Long: parametersHelp,
		Args: command.Arguments(1, 1),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			request := &keywrightv1.GetImportParametersRequest{Algorithm: algorithm, Ttl: validFor.Proto(), SingleUse: once, IdempotencyKey: command.IdempotencyKey()}
			var err error
			if request.Namespace, request.Key, err = namespaceOrKey(args[0]); err != nil {
				return err
			}
			if request.ProtectionLevel, err = enum[keywrightv1.ProtectionLevel]("protection", protection, keywrightv1.ProtectionLevel_value); err != nil {
				return err
			}
			parameters, err := c.GetImportParameters(ctx, request)
			if err != nil {
				return err
			}
			return a.showParameters(parameters, out)
		})}
	flags := cmd.Flags()
	flags.StringVar(&algorithm, "algorithm", "", "of the key to be imported; that of NAMESPACE/KEY if it exists")
	flags.StringVar(&protection, "protection", "", "SOFTWARE or HSM; SOFTWARE if not given")
	flags.Var(&validFor, "valid-for", "how long it serves, 1m to 7d; 24h if not given")
	flags.BoolVar(&once, "single-use", false, "for one import only")
	flags.StringVar(&out, "out", "", "file for the public key; printed if not given")
	return cmd
}

func (a app) showParameters(p *keywrightv1.ImportParameters, out string) error {
	if out != "" {
		if err := ui.WriteFile(out, []byte(p.GetPublicKeyPem())); err != nil {
			return err
		}
	}
	if err := command.Describe(a.App, parameterColumns(), p); err != nil || out != "" || a.JSON() {
		return err
	}
	_, err := fmt.Fprint(a.Out, "\n", p.GetPublicKeyPem())
	return err
}

func parameterColumns() []ui.Column[*keywrightv1.ImportParameters] {
	type p = *keywrightv1.ImportParameters
	return []ui.Column[p]{
		{Title: "import job", Value: p.GetImportJob},
		{Title: "namespace", Value: p.GetNamespace},
		{Title: "key", Value: p.GetKey},
		{Title: "algorithm", Value: p.GetAlgorithm},
		{Title: "protection", Value: func(p p) string { return p.GetProtectionLevel().String() }},
		{Title: "method", Value: p.GetMethod},
		{Title: "OAEP hash", Value: p.GetOaepHash},
		{Title: "single use", Value: func(p p) string { return ui.YesNo(p.GetSingleUse()) }},
		{Title: "expires", Value: func(p p) string { return ui.Time(p.GetExpireTime()) }},
	}
}
