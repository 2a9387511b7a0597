// Package manage holds the commands that manage and look: namespaces, keys and
// their versions, policies, groups, tokens, the audit log and the server's state. There
// is a file for each group.
package manage

import (
	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
)

// Commands returns the commands.
func Commands(of *command.App) []*cobra.Command {
	a := app{of}
	return []*cobra.Command{
		a.statusCommand(), a.algorithmsCommand(), a.namespaceCommand(), a.keyCommand(),
		a.policyCommand(), a.groupCommand(), a.tokenCommand(), a.whoamiCommand(), a.auditCommand(), a.rootCommand(),
	}
}

// app is a run of the program, with what these commands do.
type app struct{ *command.App }
