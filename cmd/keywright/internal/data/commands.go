// Package data holds the commands that work on data: encrypt, decrypt, sign, MAC,
// data keys and random bytes. There is a file for each operation; source.go has
// what they share.
package data

import (
	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
)

// Commands returns the commands.
func Commands(of *command.App) []*cobra.Command {
	a := app{of}
	return []*cobra.Command{
		a.encryptCommand(), a.decryptCommand(), a.reencryptCommand(),
		a.signCommand(), a.verifyCommand(), a.macCommand(), a.datakeyCommand(), a.randomCommand(),
	}
}

// app is a run of the program, with what these commands do.
type app struct{ *command.App }
