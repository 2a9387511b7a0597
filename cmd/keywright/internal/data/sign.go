package data

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// maxSigned is the largest message that is sent to the server to be signed, in
// bytes; what is larger is hashed here.
const maxSigned = 1 << 20

const signHelp = `Sign FILE or standard input and write the signature.

What is larger than 1 MiB is hashed here and its digest sent, with the hash of
the key's algorithm; ED25519 needs the whole message at the server. With
--digest, the input is the digest itself, in bytes.`

// signing is what sign and verify have in common.
type signing struct {
	app

	in      command.InputFlags
	digest  bool
	format  string
	version uint32
}

func (s *signing) add(cmd *cobra.Command) {
	s.in.Add(cmd)
	cmd.Flags().BoolVar(&s.digest, "digest", false, "the input is the message's digest, not the message")
	cmd.Flags().StringVar(&s.format, "format", "der", "how an ECDSA signature is written: der, raw or jws")
	command.AddVersion(cmd, &s.version, "the key version; the primary one if not given")
}

// signed is a message or its digest.
type signed struct {
	namespace, key  string
	message, digest []byte
	format          keywrightv1.SignatureFormat
}

func (s *signing) read(ctx context.Context, c *client.Client, args []string) (signed, error) {
	format, known := keywrightv1.SignatureFormat_value[strings.ToUpper(s.format)]
	if !known {
		return signed{}, command.Usagef("--format must be der, raw or jws, not %q", s.format)
	}
	in, err := s.openSource(ctx, args, s.in, false, bindingFlags{})
	if err != nil {
		return signed{}, err
	}
	defer in.Close() //nolint:errcheck // it was only read
	out := signed{namespace: in.namespace, key: in.key, format: keywrightv1.SignatureFormat(format)}
	if s.digest {
		out.digest, err = ui.ReadAll(in, maxSmallFile)
		return out, err
	}
	out.message, err = io.ReadAll(io.LimitReader(in, maxSigned+1))
	if err == nil && len(out.message) > maxSigned {
		rest := io.MultiReader(bytes.NewReader(out.message), in)
		out.message = nil
		out.digest, err = s.hash(ctx, c, in, rest)
	}
	return out, err
}

// hash hashes a long message with the hash that the key's algorithm ends with.
func (s *signing) hash(ctx context.Context, c *client.Client, in source, message io.Reader) ([]byte, error) {
	public, err := c.GetPublicKey(ctx, &keywrightv1.GetPublicKeyRequest{Namespace: in.namespace, Key: in.key, Version: s.version})
	if err != nil {
		return nil, err
	}
	hashes := map[string]crypto.Hash{"SHA256": crypto.SHA256, "SHA384": crypto.SHA384, "SHA512": crypto.SHA512}
	algorithm := public.GetAlgorithm()
	hash := hashes[algorithm[strings.LastIndexByte(algorithm, '_')+1:]]
	if hash == 0 {
		return nil, command.Usagef("%s signs whole messages, of at most %d bytes here; sign a digest of the file instead", algorithm, maxSigned)
	}
	sum := hash.New()
	if _, err := io.Copy(sum, message); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

func (a app) signCommand() *cobra.Command {
	s := signing{app: a}
	var out outputFlags
	cmd := &cobra.Command{Use: "sign NAMESPACE/KEY [FILE]", Short: "Sign a file or standard input", Long: signHelp, Args: command.Arguments(1, 2),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			textual := strings.EqualFold(s.format, "jws")
			if err := a.refuseTerminal(outputFlags{path: out.path, text: out.text || textual}); err != nil {
				return err
			}
			m, err := s.read(ctx, c, args)
			if err != nil {
				return err
			}
			response, err := c.Sign(ctx, &keywrightv1.SignRequest{
				Namespace: m.namespace, Key: m.key, Message: m.message, Digest: m.digest, Format: m.format, Version: s.version})
			if err != nil {
				return err
			}
			signature := response.GetSignature()
			if textual && !a.JSON() {
				signature = append(signature, '\n')
			}
			return a.deliverSigned(out, "signature", signature, response.GetVersion())
		})}
	s.add(cmd)
	out.add(cmd)
	out.addText(cmd, "write base64 text")
	return cmd
}

// deliverSigned delivers a signature or MAC and says which version made it.
func (a app) deliverSigned(out outputFlags, field string, data []byte, version uint32) error {
	if err := a.deliver(out, field, data, version); err != nil || a.JSON() {
		return err
	}
	_, err := fmt.Fprintf(a.Err, "%s by version %d\n", field, version)
	return err
}

func (a app) verifyCommand() *cobra.Command {
	s := signing{app: a}
	var proof proofFlags
	cmd := &cobra.Command{Use: "verify NAMESPACE/KEY [FILE] --signature FILE", Short: "Verify the signature of a file or standard input; exit 1 if not valid", Args: command.Arguments(1, 2),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			signature, err := proof.read("signature", strings.EqualFold(s.format, "jws"))
			if err != nil {
				return err
			}
			m, err := s.read(ctx, c, args)
			if err != nil {
				return err
			}
			response, err := c.Verify(ctx, &keywrightv1.VerifyRequest{
				Namespace: m.namespace, Key: m.key, Message: m.message, Digest: m.digest, Format: m.format, Signature: signature, Version: s.version})
			if err != nil {
				return err
			}
			return a.verdict("signature", response.GetValid(), response.GetVersion())
		})}
	s.add(cmd)
	proof.add(cmd, "signature")
	return cmd
}

// proofFlags name the file that holds what is to be verified.
type proofFlags struct {
	path string
	text bool
}

func (p *proofFlags) add(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&p.path, what, "", "file that holds the "+what)
	cmd.Flags().BoolVar(&p.text, "base64", false, "the "+what+" is base64 text")
}

// read returns the signature or MAC; jws is text already, which may end with a newline.
func (p *proofFlags) read(what string, jws bool) ([]byte, error) {
	if p.path == "" {
		return nil, command.Usagef("say by --%s which file holds the %s", what, what)
	}
	data, err := ui.ReadFile(p.path, maxSmallFile)
	if err != nil {
		return nil, err
	}
	if p.text {
		if data, err = ui.Base64(data); err != nil {
			return nil, fmt.Errorf("%s: %w", p.path, err)
		}
	}
	if jws {
		data = bytes.TrimSpace(data)
	}
	return data, nil
}

// verdict prints whether a signature or MAC is valid; it is an error when not.
func (a app) verdict(what string, valid bool, version uint32) error {
	if a.JSON() {
		if err := ui.ValueJSON(a.Out, map[string]any{"valid": valid, "version": version}); err != nil {
			return err
		}
	}
	if !valid {
		return errors.New("the " + what + " is NOT valid")
	}
	if a.JSON() {
		return nil
	}
	_, err := fmt.Fprintf(a.Out, "%s valid, version %d\n", what, version)
	return err
}
