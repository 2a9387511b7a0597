// Command keywright is the command line of Keywright, for operators and
// developers. It speaks gRPC to a keywrightd server and holds no key but, while
// it encrypts or decrypts a large file, that file's data key.
package main

import (
	"os"

	"github.com/keywright/keywright/cmd/keywright/internal/cli"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	app := &command.App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Version: version}
	return cli.Main(app, os.Args[1:])
}
