package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/cmd/keywright/internal/ui"
)

// keyName takes NAMESPACE/KEY apart, or KEY in the default namespace.
func (a *app) keyName(text string) (namespace, key string, err error) {
	namespace, key, slash := strings.Cut(text, "/")
	if !slash {
		namespace, key = a.defaultNamespace(), text
	}
	switch {
	case key == "" || strings.Contains(key, "/"):
		return "", "", usagef("%q is no key's name; write NAMESPACE/KEY", text)
	case namespace == "":
		return "", "", usagef("%q names no namespace; write NAMESPACE/KEY, or give --namespace or %s", text, EnvNamespace)
	}
	return namespace, key, nil
}

func (a *app) defaultNamespace() string {
	if a.namespace != "" {
		return a.namespace
	}
	return a.getenv(EnvNamespace)
}

// namespaceArgument is the namespace in args, or the default one.
func (a *app) namespaceArgument(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if namespace := a.defaultNamespace(); namespace != "" {
		return namespace, nil
	}
	return "", usagef("name a namespace: as an argument, by --namespace or by %s", EnvNamespace)
}

// idempotencyKey marks one mutation, so that sending it again does it only once.
func idempotencyKey() string { return rand.Text() }

// pairs is a repeatable flag of the form key=value.
type pairs map[string]string

func (p *pairs) String() string { return ui.Pairs(*p) }

// Type is what the help shows.
func (p *pairs) Type() string { return "key=value" }

// Set adds a pair; the first = separates.
func (p *pairs) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return errors.New("must be key=value")
	}
	if _, twice := (*p)[key]; twice {
		return fmt.Errorf("gives the key %q twice", key)
	}
	if *p == nil {
		*p = pairs{}
	}
	maps.Copy(*p, pairs{key: value})
	return nil
}

// span is a duration flag that also knows days, such as 30d; it remembers
// whether it was given.
type span struct {
	time.Duration
	given bool
}

func (s *span) String() string {
	if !s.given {
		return ""
	}
	return s.Duration.String()
}

// Type is what the help shows.
func (s *span) Type() string { return "duration" }

// Set reads Go's durations, or a number of days with a d behind it.
func (s *span) Set(text string) (err error) {
	s.given = true
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

// proto returns the duration, or nil if the flag was not given.
func (s *span) proto() *durationpb.Duration {
	if !s.given {
		return nil
	}
	return durationpb.New(s.Duration)
}

// confirm asks, on a terminal, to type the name of what a command would harm.
func (a *app) confirm(yes bool, consequence, name string) error {
	if yes {
		return nil
	}
	if !ui.IsTerminal(a.In) || !ui.IsTerminal(a.Err) {
		return usagef("%s; there is no terminal to ask on, so say --yes if that is what you want", consequence)
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
