package layout

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestHead(t *testing.T) {
	for _, n := range []uint64{0, 1, 9, 10, 99, 1041, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		if got, ok := Head(append(AppendHead(nil, n), `,"time":"..."}`...)); !ok || got != n {
			t.Errorf("%d came back as %d, %v", n, got, ok)
		}
	}
	for _, line := range []string{
		"", "{", `{"v":1,"seq":`, `{"v":1,"seq":1`, `{"v":1,"seq":,`, `{"v":1,"seq":01,`, `{"v":1,"seq":00,`, `{"v":1,"seq":-1,`, `{"v":1,"seq":1}`,
		`{"v":2,"seq":1,`, `{"v":1, "seq":1,`, `{"v":1,"seq":18446744073709551616,`, `{"v":1,"seq":99999999999999999999,`, ` {"v":1,"seq":1,`,
	} {
		if got, ok := Head([]byte(line)); ok {
			t.Errorf("%q has the number %d", line, got)
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte(`{"v":1,"seq":1041,"time"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		n, ok := Head(line)
		if !ok {
			return
		}
		if want := append(AppendHead(nil, n), ','); string(line[:len(want)]) != string(want) {
			t.Fatalf("%q has the number %d", line, n)
		}
	})
}

func TestSegments(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{SegmentName(100), SegmentName(0), SegmentName(99), Tree, "0000000000000000.index1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Segments(dir)
	if err != nil || len(found) != 3 || found[0] != (Segment{0, 22}) || found[1].First != 99 || found[2].First != 100 {
		t.Errorf("%v (%v)", found, err)
	}
	for _, name := range []string{"7.jsonl", "x.jsonl", ".jsonl", "00000000000000000.jsonl"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		corrupt := (*CorruptError)(nil)
		if _, err := Segments(dir); !errors.As(err, &corrupt) || corrupt.File != path {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadFirst(t *testing.T) {
	dir := t.TempDir()
	if first, err := ReadFirst(dir); err != nil || first != 0 {
		t.Errorf("without a file: %d (%v)", first, err)
	}
	for text, want := range map[string]uint64{"0\n": 0, "1041\n": 1041} {
		if err := os.WriteFile(filepath.Join(dir, First), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if first, err := ReadFirst(dir); err != nil || first != want {
			t.Errorf("%q: %d (%v)", text, first, err)
		}
	}
	for _, text := range []string{"", "7", "x\n", "-1\n", "7\n\n"} {
		if err := os.WriteFile(filepath.Join(dir, First), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFirst(dir); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v, want ErrCorrupt", text, err)
		}
	}
}
