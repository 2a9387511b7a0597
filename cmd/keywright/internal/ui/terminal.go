package ui

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// IsTerminal reports whether stream, an io.Reader or io.Writer, is a terminal.
func IsTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Ask shows the question and reports whether the line read is answer.
func Ask(in io.Reader, out io.Writer, question, answer string) (bool, error) {
	if _, err := fmt.Fprint(out, question); err != nil {
		return false, err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return strings.TrimSpace(line) == answer, nil
}

// ErrBinary is the error of writing to a terminal what is not text.
var ErrBinary = errors.New("this is binary data, which is not written to a terminal; give --out FILE, a pipe or -o json")

// TextOnly returns w, or, if w is a terminal, a writer that refuses what is not
// text, since control characters can do harm there.
func TextOnly(w io.Writer) io.Writer {
	if IsTerminal(w) {
		return textWriter{w}
	}
	return w
}

type textWriter struct{ w io.Writer }

// Write refuses p when it is not text. So a long text whose portions end within a
// character is refused too: what is that long is not for a terminal.
func (t textWriter) Write(p []byte) (int, error) {
	if !utf8.Valid(p) || bytes.ContainsFunc(p, isControl) {
		return 0, ErrBinary
	}
	return t.w.Write(p)
}

func isControl(r rune) bool {
	return r < ' ' && r != '\n' && r != '\t' && r != '\r' || r >= 0x7f && r < 0xa0
}

// Progress returns a reader of r that shows on w how far it has come, and a
// function that ends the display. Without a terminal there is none. A size of -1
// means that it is not known.
func Progress(r io.Reader, size int64, w io.Writer, what string) (io.Reader, func()) {
	if !IsTerminal(w) {
		return r, func() {}
	}
	bar := progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what), progressbar.OptionShowBytes(true),
		progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100_000_000), progressbar.OptionClearOnFinish())
	reader := progressbar.NewReader(r, bar)
	return &reader, func() { _ = bar.Finish() } // a display that fails is no failure
}

// Meter returns a function that shows on w how many bytes of how many are done,
// and one that ends the display. Without a terminal the first is nil.
func Meter(w io.Writer, what string) (progress func(done, total int64), end func()) {
	if !IsTerminal(w) {
		return nil, func() {}
	}
	bar := progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what), progressbar.OptionShowBytes(true),
		progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100_000_000), progressbar.OptionClearOnFinish())
	return func(done, total int64) {
		bar.ChangeMax64(total)
		_ = bar.Set64(done) // a display that fails is no failure
	}, func() { _ = bar.Finish() }
}
