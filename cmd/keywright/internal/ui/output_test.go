package ui

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// alone fails if there is anything but the named files in dir.
func alone(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Fatalf("%s holds %q, want %q", dir, got, names)
	}
}

func TestCreateWritesAFileWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := Create(path, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(out, "new"); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "old" {
		t.Fatalf("before Commit the file holds %q", got)
	}
	if err := out.Commit(); err != nil {
		t.Fatal(err)
	}
	out.Discard()
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || read(t, path) != "new" {
		t.Fatalf("mode %v, %v, holds %q", info.Mode(), err, read(t, path))
	}
	alone(t, dir, "out")
}

func TestDiscardLeavesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := Create(path, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	out.Discard()
	out.Discard()
	if got := read(t, path); got != "old" {
		t.Fatalf("the file holds %q", got)
	}
	alone(t, dir, "out")
}

func TestCommitThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	out, err := Create(path, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := out.Commit(); err == nil {
		t.Fatal("replaced a directory")
	}
	alone(t, dir, "out")
}

func TestFullDiskIsReported(t *testing.T) {
	out, err := Create("/dev/full", nil, false)
	if err != nil && os.Getenv("CI") == "" {
		t.Skip("no /dev/full here:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(out, "x"); err != nil {
		t.Fatal(err)
	}
	if err := out.Commit(); err == nil {
		t.Fatal("nothing was said of the full disk")
	}
	if info, err := os.Stat("/dev/full"); err != nil || info.Mode().IsRegular() {
		t.Fatalf("the device was replaced: %v, %v", info, err)
	}
}

func TestCreateFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 || read(t, target) != "x" {
		t.Fatalf("the link became %v, %v; the target holds %q", info.Mode(), err, read(t, target))
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "no", "such", "folder"), "nul\x00"} {
		if _, err := Create(path, nil, false); err == nil {
			t.Errorf("created %q", path)
		}
	}
	alone(t, dir)
}

func TestBase64RoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 2, 3, 100, 1 << 20} {
		want := bytes.Repeat([]byte{0xfe}, size)
		var text bytes.Buffer
		out, err := Create("", &text, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(want); err != nil {
			t.Fatal(err)
		}
		if err := out.Commit(); err != nil {
			t.Fatal(err)
		}
		in, err := Open(t.Context(), "-", &text, true)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(in)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came back as %d, %v", size, len(got), err)
		}
	}
}

func TestBase64Refuses(t *testing.T) {
	for _, text := range []string{"!", "QQ", "QQ=", "QUJD\x00", "QQ==QQ=="} {
		if _, err := Base64([]byte(text)); !errors.Is(err, ErrBase64) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestInputEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in, err := Open(ctx, "", strings.NewReader("abc"), false)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if data, err := io.ReadAll(in); !errors.Is(err, context.Canceled) || len(data) > 0 {
		t.Fatalf("read %q, %v", data, err)
	}
}

func TestReadAllKeepsToItsLimit(t *testing.T) {
	if data, err := ReadAll(strings.NewReader("abc"), 3); err != nil || string(data) != "abc" {
		t.Fatalf("%q, %v", data, err)
	}
	if _, err := ReadAll(strings.NewReader("abcd"), 3); err == nil || !strings.Contains(err.Error(), "3 bytes") {
		t.Fatalf("got %v", err)
	}
}

func TestTextWriterRefusesControlCharacters(t *testing.T) {
	for _, text := range []string{"\x1b[2J", "\x00", "\x7f", "\u009b2J", "\xff"} {
		var shown bytes.Buffer
		if _, err := (textWriter{&shown}).Write([]byte("ok" + text)); !errors.Is(err, ErrBinary) || shown.Len() > 0 {
			t.Errorf("%q: %v, shown %q", text, err, shown.String())
		}
	}
	for _, text := range []string{"", "plain\n\ttext\r\n", "für 鍵"} {
		if _, err := (textWriter{io.Discard}).Write([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCellAndLineAreHarmless(t *testing.T) {
	for text, want := range map[string]string{"": "-", "a b": "a b", "für": "für", "a\x1b[2J": `"a\x1b[2J"`, "a\nb": `"a\nb"`, "a\u202eb": `"a\u202eb"`} {
		if got := Cell(text); got != want {
			t.Errorf("Cell(%q) = %q, want %q", text, got, want)
		}
	}
	if got := Line("one\ntwo\x1b three\r\n"); got != "one two  three" {
		t.Errorf("Line gave %q", got)
	}
}

func TestAsk(t *testing.T) {
	for input, want := range map[string]bool{"ns/key\n": true, "ns/key": true, " ns/key \r\n": true, "yes\n": false, "\n": false, "": false, "ns/key2\n": false} {
		got, err := Ask(strings.NewReader(input), io.Discard, "?", "ns/key")
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", input, got, err)
		}
	}
}

// TestInputThatWaitsEndsWithItsContext: a pipe that nobody writes to does not hold a command up.
func TestInputThatWaitsEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pipe, writer := io.Pipe()
	defer writer.Close() //nolint:errcheck // it ends the read that was left behind
	in, err := Open(ctx, "", pipe, false)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = writer.Write([]byte("abc")) // the reader sees what is wrong
		cancel()
	}()
	if data, err := io.ReadAll(in); !errors.Is(err, context.Canceled) || string(data) != "abc" && len(data) > 0 {
		t.Fatalf("read %q, %v", data, err)
	}
}

func TestInputGivesDataBeforeItsError(t *testing.T) {
	broken := errors.New("broken")
	for _, r := range []io.Reader{
		io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)),
		iotest.DataErrReader(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))),
		iotest.OneByteReader(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))),
	} {
		in, err := Open(t.Context(), "", r, false)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(in); !errors.Is(err, broken) || string(data) != "abc" {
			t.Fatalf("read %q, %v", data, err)
		}
	}
}
