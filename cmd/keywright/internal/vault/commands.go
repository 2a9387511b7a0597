// Package vault holds the commands that bring keys of the transit engine of HashiCorp
// Vault or OpenBao to Keywright, and back. A backup of a key is its material in
// plaintext: it goes from one server to the other, and is looked at by neither this
// program nor its log.
package vault

import (
	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
)

// Commands returns the commands.
func Commands(of *command.App) []*cobra.Command {
	a := app{of}
	return []*cobra.Command{
		a.Group("import", "Bring keys of other services to Keywright", a.importVault()),
		a.Group("export", "Take keys to other services", a.exportVault()),
	}
}

// app is a run of the program, with what these commands do.
type app struct{ *command.App }
