package data

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func (a app) macCommand() *cobra.Command {
	return a.Group("mac", "Generate and verify message authentication codes", a.macGenerate(), a.macVerify())
}

func (a app) macGenerate() *cobra.Command {
	var in command.InputFlags
	var out outputFlags
	var version uint32
	cmd := &cobra.Command{Use: "generate NAMESPACE/KEY [FILE]", Short: "Compute the MAC of a file or standard input", Args: command.Arguments(1, 2),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			if err := a.refuseTerminal(out); err != nil {
				return err
			}
			s, message, err := a.readMessage(ctx, args, in)
			if err != nil {
				return err
			}
			response, err := c.GenerateMac(ctx, &keywrightv1.GenerateMacRequest{Namespace: s.namespace, Key: s.key, Message: message, Version: version})
			if err != nil {
				return err
			}
			return a.deliverSigned(out, "mac", response.GetMac(), response.GetVersion())
		})}
	in.Add(cmd)
	out.add(cmd)
	out.addText(cmd, "write base64 text")
	command.AddVersion(cmd, &version, "the key version; the primary one if not given")
	return cmd
}

func (a app) macVerify() *cobra.Command {
	var in command.InputFlags
	var proof proofFlags
	var version uint32
	cmd := &cobra.Command{Use: "verify NAMESPACE/KEY [FILE] --mac FILE", Short: "Verify the MAC of a file or standard input; exit 1 if not valid", Args: command.Arguments(1, 2),
		RunE: a.Run(func(ctx context.Context, c *client.Client, args []string) error {
			mac, err := proof.read("mac", false)
			if err != nil {
				return err
			}
			s, message, err := a.readMessage(ctx, args, in)
			if err != nil {
				return err
			}
			response, err := c.VerifyMac(ctx, &keywrightv1.VerifyMacRequest{Namespace: s.namespace, Key: s.key, Message: message, Mac: mac, Version: version})
			if err != nil {
				return err
			}
			return a.verdict("mac", response.GetValid(), response.GetVersion())
		})}
	in.Add(cmd)
	proof.add(cmd, "mac")
	command.AddVersion(cmd, &version, "the key version; the primary one if not given")
	return cmd
}

// readMessage reads all of the input.
func (a app) readMessage(ctx context.Context, args []string, in command.InputFlags) (source, []byte, error) {
	s, err := a.openSource(ctx, args, in, false, bindingFlags{})
	if err != nil {
		return source{}, nil, err
	}
	defer s.Close() //nolint:errcheck // it was only read
	message, err := ui.ReadAll(s, maxMessage)
	return s, message, err
}
