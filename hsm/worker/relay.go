package worker

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
)

// Bounds of what is taken from a worker's standard error.
const (
	maxLine  = 64 << 10
	maxNoise = 100 // lines that are no log, of one worker
)

// relay passes a line of the worker's log on, with its level and attributes. It
// tells whether the line was one.
func relay(log *slog.Logger, line []byte) bool {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return false
	}
	message, ok := fields[slog.MessageKey].(string)
	text, _ := fields[slog.LevelKey].(string)
	var level slog.Level
	if !ok || level.UnmarshalText([]byte(text)) != nil {
		return false
	}
	delete(fields, slog.MessageKey)
	delete(fields, slog.LevelKey)
	delete(fields, slog.TimeKey)
	var attrs []slog.Attr
	for name, value := range fields {
		attrs = append(attrs, slog.Any(name, value))
	}
	log.LogAttrs(context.Background(), level, message, attrs...)
	return true
}

// noise keeps what a module or the runtime printed, for the reason of the worker's
// end. Safe for concurrent use.
type noise struct {
	mu    sync.Mutex
	lines []string
}

// add keeps the first lines: a crash says first what it is.
func (t *noise) add(line string) {
	const longest = 500
	t.mu.Lock()
	defer t.mu.Unlock()
	if line != "" && len(t.lines) < maxNoise {
		t.lines = append(t.lines, line[:min(len(line), longest)])
	}
}

// first returns the first line, "" if nothing was printed.
func (t *noise) first() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return ""
	}
	return t.lines[0]
}
