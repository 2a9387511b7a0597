package badger

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// databaseLogger hands badger's messages to slog: what it calls info is detail to
// anybody else.
type databaseLogger struct{ to *slog.Logger }

func (l databaseLogger) Errorf(format string, args ...any)   { l.log(slog.LevelError, format, args) }
func (l databaseLogger) Warningf(format string, args ...any) { l.log(slog.LevelWarn, format, args) }
func (l databaseLogger) Infof(format string, args ...any)    { l.log(slog.LevelDebug, format, args) }
func (l databaseLogger) Debugf(format string, args ...any)   { l.log(slog.LevelDebug, format, args) }

func (l databaseLogger) log(level slog.Level, format string, args []any) {
	if l.to.Enabled(context.Background(), level) {
		l.to.Log(context.Background(), level, "badger: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}
