package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ErrInvalid means that the configuration cannot be used; the error is an *Invalid.
var ErrInvalid = errors.New("configuration invalid")

// Invalid lists what is wrong with a configuration: each problem names the field
// or the line, and what to do.
type Invalid struct {
	Path     string // of the file, "" when it came from none
	Problems []string
}

// Error has one line for each problem.
func (e *Invalid) Error() string {
	lines := make([]string, len(e.Problems))
	for i, problem := range e.Problems {
		lines[i] = strings.TrimPrefix(e.Path+": "+problem, ": ")
	}
	return strings.Join(lines, "\n")
}

// Is matches ErrInvalid.
func (e *Invalid) Is(target error) bool { return target == ErrInvalid }

// Load reads and validates a file. Relative paths in it are seen from the file's
// directory. The error is an *Invalid.
func Load(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &Invalid{Problems: []string{fmt.Sprintf("configuration: %v: name the file with --config; docs/keywrightd.yaml is a sample", err)}}
	}
	c, problems := Parse(text)
	if len(problems) == 0 {
		if err := c.resolve(filepath.Dir(path)); err != nil {
			return nil, err
		}
		problems = c.Problems()
	}
	if len(problems) > 0 {
		return nil, &Invalid{Path: path, Problems: problems}
	}
	return c, nil
}

// Parse reads a configuration without looking at what it says.
func Parse(text []byte) (*Config, []string) {
	c := Default()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, describe(err)
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, []string{"holds more than one YAML document: write one"}
	}
	return &c, nil
}

// rewrites turn what the YAML package says into what helps. A value of the wrong
// type is left out: it may be a PIN that somebody wrote where its file belongs.
var rewrites = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`(?s)cannot unmarshal .*$`), "a value of another type belongs here: docs/keywrightd.yaml shows which"},
	{regexp.MustCompile(` not found in type \S+$`), " is unknown: docs/keywrightd.yaml shows the fields there are"},
}

// describe turns the YAML package's errors into one problem each.
func describe(err error) []string {
	var mistakes *yaml.TypeError
	if !errors.As(err, &mistakes) {
		return []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	problems := make([]string, len(mistakes.Errors))
	for i, text := range mistakes.Errors {
		for _, rewrite := range rewrites {
			text = rewrite.pattern.ReplaceAllString(text, rewrite.text)
		}
		problems[i] = text
	}
	return problems
}

// resolve makes every path absolute, seen from dir.
func (c *Config) resolve(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("directory of the configuration: %w", err)
	}
	paths := []*string{&c.DataDir, &c.HSM.Module, &c.HSM.PIN.File, &c.TLS.CertFile, &c.TLS.KeyFile, &c.Audit.Dir}
	for i := range c.TLS.ClientCAs {
		paths = append(paths, &c.TLS.ClientCAs[i].File)
	}
	for i := range c.Audit.Receivers {
		paths = append(paths, &c.Audit.Receivers[i].File)
	}
	for i := range c.Listen.Unix {
		paths = append(paths, &c.Listen.Unix[i].Path)
	}
	for i := range c.Listen.Kubernetes {
		paths = append(paths, &c.Listen.Kubernetes[i].Path)
	}
	paths = append(paths, c.HSM.tokenPaths()...)
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	return nil
}
