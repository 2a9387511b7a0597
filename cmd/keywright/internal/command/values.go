package command

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/cmd/keywright/internal/ui"
)

// KeyName takes NAMESPACE/KEY apart, or KEY in the default namespace.
func (a *App) KeyName(text string) (namespace, key string, err error) {
	namespace, key, slash := strings.Cut(text, "/")
	if !slash {
		namespace, key = a.defaultNamespace(), text
	}
	switch {
	case key == "" || strings.Contains(key, "/"):
		return "", "", Usagef("%q is no key's name; write NAMESPACE/KEY", text)
	case namespace == "":
		return "", "", Usagef("%q names no namespace; write NAMESPACE/KEY, or give --namespace or %s", text, EnvNamespace)
	}
	return namespace, key, nil
}

func (a *App) defaultNamespace() string {
	if a.Namespace != "" {
		return a.Namespace
	}
	return a.Getenv(EnvNamespace)
}

// NamespaceArgument is the namespace in args, or the default one.
func (a *App) NamespaceArgument(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if namespace := a.defaultNamespace(); namespace != "" {
		return namespace, nil
	}
	return "", Usagef("name a namespace: as an argument, by --namespace or by %s", EnvNamespace)
}

// IdempotencyKey marks one mutation, so that sending it again does it only once.
func IdempotencyKey() string { return rand.Text() }

// Pairs is a repeatable flag of the form key=value.
type Pairs map[string]string

// String is what the help shows as default.
func (p *Pairs) String() string { return ui.Pairs(*p) }

// Type is what the help shows.
func (p *Pairs) Type() string { return "key=value" }

// Set adds a pair; the first = separates.
func (p *Pairs) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return errors.New("must be key=value")
	}
	if _, twice := (*p)[key]; twice {
		return fmt.Errorf("gives the key %q twice", key)
	}
	if *p == nil {
		*p = Pairs{}
	}
	(*p)[key] = value
	return nil
}

// Span is a duration flag that also knows days, such as 30d; it remembers
// whether it was given.
type Span struct {
	time.Duration
	Given bool
}

// String is what the help shows as default.
func (s *Span) String() string {
	if !s.Given {
		return ""
	}
	return s.Duration.String()
}

// Type is what the help shows.
func (s *Span) Type() string { return "duration" }

// Set reads Go's durations, or a number of days with a d behind it.
func (s *Span) Set(text string) (err error) {
	s.Given = true
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		s.Duration = time.Duration(n) * 24 * time.Hour
		return err
	}
	s.Duration, err = time.ParseDuration(text)
	if err == nil && s.Duration < 0 {
		return errors.New("must not be negative")
	}
	return err
}

// Proto returns the duration, or nil if the flag was not given.
func (s *Span) Proto() *durationpb.Duration {
	if !s.Given {
		return nil
	}
	return durationpb.New(s.Duration)
}

// InputFlags say where a command's data comes from.
type InputFlags struct{ path string }

// Add adds --in.
func (f *InputFlags) Add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.path, "in", "", "file to read; standard input if not given")
}

// From returns the input's path: the flag's, or the argument that follows the first ones.
func (f *InputFlags) From(args []string, first int) (string, error) {
	if len(args) <= first {
		return f.path, nil
	}
	if f.path != "" {
		return "", Usagef("the input is given twice, as %q and by --in", args[first])
	}
	return args[first], nil
}

// Confirm asks, on a terminal, to type the name of what a command would harm.
func (a *App) Confirm(yes bool, consequence, name string) error {
	if yes {
		return nil
	}
	if !ui.IsTerminal(a.In) {
		return Usagef("%s; there is no terminal to ask on, so say --yes if that is what you want", consequence)
	}
	ok, err := ui.Ask(a.In, a.Err, fmt.Sprintf("%s.\nType %s to go on: ", consequence, ui.Cell(name)), name)
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("that is not the name; nothing was changed")
	}
	return nil
}
