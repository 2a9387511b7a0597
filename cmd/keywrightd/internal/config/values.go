package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a time.Duration written as Go writes them, such as 10ms, 5s or 1h30m.
type Duration time.Duration

// UnmarshalYAML reads a duration; the error names the line.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := time.ParseDuration(node.Value)
	if err != nil || node.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: %q is no duration: write a number and a unit, such as 10ms, 5s or 1h", node.Line, node.Value)
	}
	*d = Duration(parsed)
	return nil
}

// Bytes is a size in bytes, written as a whole number, or one with a unit: KiB,
// MiB or GiB.
type Bytes int64

// UnmarshalYAML reads a size; the error names the line.
func (b *Bytes) UnmarshalYAML(node *yaml.Node) error {
	parsed, ok := parseBytes(node.Value)
	if !ok || node.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: %q is no size: write a whole number of bytes, or one with KiB, MiB or GiB", node.Line, node.Value)
	}
	*b = parsed
	return nil
}

func parseBytes(text string) (Bytes, bool) {
	unit := int64(1)
	for shift, suffix := range []string{"KiB", "MiB", "GiB"} {
		if number, found := strings.CutSuffix(text, suffix); found {
			text, unit = strings.TrimSpace(number), 1<<(10*(shift+1))
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, false
	}
	return Bytes(n * unit), true
}

// Mode is the permissions of a file, written in octal such as 0660.
type Mode uint32

// UnmarshalYAML reads a mode; the error names the line.
func (m *Mode) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := strconv.ParseUint(node.Value, 8, 32)
	if err != nil || node.Kind != yaml.ScalarNode || parsed > 0o777 {
		return fmt.Errorf("line %d: %q is no mode: write three octal digits after a 0, such as 0660", node.Line, node.Value)
	}
	*m = Mode(parsed)
	return nil
}
