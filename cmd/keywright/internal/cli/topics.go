package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
)

func exitCodesTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("Exit codes, for scripts:\n\n")
	for _, row := range command.ExitCodes() {
		fmt.Fprintf(&text, "  %3d  %s\n", row.Code, row.Meaning)
	}
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: text.String()}
}

func connectionTopic() *cobra.Command {
	return &cobra.Command{Use: "connection", Short: "How keywright finds the server and says who calls", Long: `Each setting is taken from its flag, else from the environment, else from the
profile, a YAML file of which each field is optional:

  addr: 127.0.0.1:7700      ` + client.EnvAddr + `
  ca_file: tls/ca.pem       ` + client.EnvCAFile + `
  cert_file: tls/me.pem     ` + client.EnvCertFile + `
  key_file: tls/me.key      ` + client.EnvKeyFile + `
  token_file: token         ` + client.EnvTokenFile + `, or the token itself in ` + client.EnvToken + `

Paths in a profile are seen from the profile's folder. The profile is the file
named by --config or ` + client.EnvConfig + `, else ~/.config/keywright/config.yaml if
there is one. A token is used rather than a certificate, unless the certificate
was given nearer (flag before environment before profile). Tokens are never
arguments, since other users of the machine can see those.
`}
}
