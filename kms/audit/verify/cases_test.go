package verify_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/verify"
)

// tampering is one way to tamper with a copy of the fixture, and what must be
// said of it. Both verifiers, this package and docs/verify_audit.py, are held to it.
type tampering struct {
	name   string
	change func(t *testing.T, f fixture, dir string)
	key    int                  // which of the fixture's keys is trusted; -1 is none
	kept   func(fixture) []byte // checkpoint that was kept; nil is none

	kind  verify.Kind // "" is nothing wrong
	entry uint64
}

func kept(size uint64) func(fixture) []byte { return func(f fixture) []byte { return f.kept[size] } }

func swap(old, with string) func(lines []string) []string {
	return func(lines []string) []string {
		for i := range lines {
			lines[i] = strings.Replace(lines[i], old, with, 1)
		}
		return lines
	}
}

func nothing(*testing.T, fixture, string) {}

// lines returns a change of one segment.
func lines(first int, change func(lines []string) []string) func(*testing.T, fixture, string) {
	return func(t *testing.T, _ fixture, dir string) { edit(t, dir, first, change) }
}

// file returns a change of one file as a whole.
func file(name string, change func(path string) error) func(*testing.T, fixture, string) {
	return func(t *testing.T, _ fixture, dir string) { must(t, change(filepath.Join(dir, name))) }
}

func overwrite(text func(f fixture) []byte, name string) func(*testing.T, fixture, string) {
	return func(t *testing.T, f fixture, dir string) {
		must(t, os.WriteFile(filepath.Join(dir, name), text(f), 0o600))
	}
}

// remade makes the lines anew with a change, and signs them if a key is named.
func remade(changes map[int]string, size int, signer int) func(*testing.T, fixture, string) {
	return func(t *testing.T, f fixture, dir string) {
		l := replay(t, dir, ids(changes)[:size])
		if signer >= 0 {
			signed := sign(t, l, min(50, uint64(size)), f.keys[signer])
			must(t, os.WriteFile(filepath.Join(dir, "checkpoint"), signed, 0o600))
		}
		must(t, l.Close())
	}
}

// dropped drops the lines before 20, then changes more.
func dropped(then func(t *testing.T, f fixture, dir string)) func(*testing.T, fixture, string) {
	return func(t *testing.T, f fixture, dir string) {
		l := openLog(t, dir, 10)
		from, to, err := l.DropBefore(t.Context(), 25)
		must(t, err)
		if from != 0 || to != 20 {
			t.Fatalf("dropped %d..%d", from, to)
		}
		must(t, l.Close())
		then(t, f, dir)
	}
}

var tamperings = []tampering{
	{name: "nothing", change: nothing},
	{name: "nothing, no key given", change: nothing, key: -1},
	{name: "nothing, a later key", change: nothing, key: 1},
	{name: "nothing, kept by the first key", change: nothing, kept: kept(10)},
	{name: "nothing, kept by the second key", change: nothing, kept: kept(30)},
	{name: "unsigned tail cut between lines", change: lines(50, func(l []string) []string { return l[:3] })},
	{name: "unsigned tail cut in a line", change: lines(50, func(l []string) []string { return []string{l[0], l[1][:40]} })},
	{name: "unsigned line changed", change: lines(50, swap("r55", "x55"))},
	{name: "a break later on", change: overwrite(func(f fixture) []byte { return f.broken }, "keys")},
	{name: "tree missing", change: file("tree", os.Remove)},
	{name: "tree damaged", change: file("tree", flip(32*7))},

	{name: "byte changed", change: lines(10, swap("r13", "x13")), kind: verify.Changed, entry: 13},
	{name: "byte changed in the first line", change: lines(0, swap("r00", "x00")), kind: verify.Changed, entry: 0},
	{name: "byte changed in the last signed line", change: lines(40, swap("r49", "x49")), kind: verify.Changed, entry: 49},
	{name: "byte changed, tree missing", change: func(t *testing.T, f fixture, dir string) {
		edit(t, dir, 10, swap("r13", "x13"))
		must(t, os.Remove(filepath.Join(dir, "tree")))
	}, kind: verify.Changed, entry: 0},
	{name: "byte changed, kept before", change: remade(map[int]string{35: "x35"}, 60, -1), kept: kept(30), kind: verify.Changed, entry: 30},
	{name: "two bytes changed", change: func(t *testing.T, _ fixture, dir string) {
		edit(t, dir, 30, swap("r33", "x33"))
		edit(t, dir, 20, swap("r27", "x27"))
	}, kind: verify.Changed, entry: 27},
	{name: "brace changed", change: lines(10, swap(`{"v":1,"seq":14`, `["v":1,"seq":14`)), kind: verify.Changed, entry: 14},
	{name: "number changed", change: lines(10, swap(`"seq":14`, `"seq":94`)), kind: verify.Changed, entry: 14},
	{name: "newline changed", change: lines(10, func(l []string) []string { l[4] = strings.TrimSuffix(l[4], "\n") + " "; return l }), kind: verify.Changed, entry: 14},
	{name: "line split", change: lines(10, swap(`"r14"`, "\n")), kind: verify.Changed, entry: 14},
	{name: "empty line", change: lines(10, func(l []string) []string { return slices.Insert(l, 4, "\n") }), kind: verify.Changed, entry: 14},
	{name: "line removed", change: lines(10, func(l []string) []string { return slices.Delete(l, 4, 5) }), kind: verify.Removed, entry: 14},
	{name: "lines removed", change: lines(10, func(l []string) []string { return slices.Delete(l, 4, 7) }), kind: verify.Removed, entry: 14},
	{name: "first line of a file removed", change: lines(10, func(l []string) []string { return l[1:] }), kind: verify.Removed, entry: 10},
	{name: "last line of a file removed", change: lines(10, func(l []string) []string { return l[:9] }), kind: verify.Missing, entry: 19},
	{name: "line removed, later ones renumbered", change: func(t *testing.T, f fixture, dir string) {
		remade(map[int]string{}, 60, -1)(t, f, dir)
		l := replay(t, dir, slices.Delete(ids(nil), 14, 15))
		must(t, l.Close())
	}, kind: verify.Changed, entry: 0},
	{name: "line repeated", change: lines(10, func(l []string) []string { return slices.Insert(l, 4, l[3]) }), kind: verify.Inserted, entry: 14},
	{name: "earlier line inserted", change: lines(10, func(l []string) []string { return slices.Insert(l, 4, l[0]) }), kind: verify.Inserted, entry: 14},
	{name: "lines reordered", change: lines(10, func(l []string) []string { l[4], l[5] = l[5], l[4]; return l }), kind: verify.Reordered, entry: 14},
	{name: "unsigned lines reordered", change: lines(50, func(l []string) []string { l[4], l[5] = l[5], l[4]; return l }), kind: verify.Reordered, entry: 54},
	{name: "bodies of two lines swapped", change: lines(10, func(l []string) []string {
		l[4], l[5] = strings.Replace(l[5], `"seq":15`, `"seq":14`, 1), strings.Replace(l[4], `"seq":14`, `"seq":15`, 1)
		return l
	}), kind: verify.Changed, entry: 14},

	{name: "first file missing", change: file("0000000000000000.jsonl", os.Remove), kind: verify.Missing, entry: 0},
	{name: "middle file missing", change: file("0000000000000030.jsonl", os.Remove), kind: verify.Missing, entry: 30},
	{name: "last signed files missing", change: func(t *testing.T, _ fixture, dir string) {
		must(t, os.Remove(segmentPath(dir, 40)))
		must(t, os.Remove(segmentPath(dir, 50)))
	}, kind: verify.Cut, entry: 40},
	{name: "all files missing", change: func(t *testing.T, _ fixture, dir string) {
		for first := 0; first < 60; first += 10 {
			must(t, os.Remove(segmentPath(dir, first)))
		}
	}, kind: verify.Cut, entry: 0},
	{name: "file renamed", change: func(t *testing.T, _ fixture, dir string) {
		must(t, os.Rename(segmentPath(dir, 30), segmentPath(dir, 28)))
	}, kind: verify.Inserted, entry: 28},
	{name: "foreign file", change: file("x.jsonl", func(path string) error { return os.WriteFile(path, nil, 0o600) }), kind: verify.Malformed, entry: 0},
	{name: "checkpoint missing", change: file("checkpoint", os.Remove), kind: verify.Missing, entry: 0},
	{name: "keys missing", change: file("keys", os.Remove), kind: verify.Missing, entry: 0},
	{name: "tail cut at a checkpoint", change: func(t *testing.T, f fixture, dir string) { // back to what was signed at 30
		for _, first := range []int{30, 40, 50} {
			must(t, os.Remove(segmentPath(dir, first)))
		}
	}, kind: verify.Cut, entry: 30},
	{name: "tail cut between checkpoints", change: func(t *testing.T, _ fixture, dir string) {
		must(t, os.Remove(segmentPath(dir, 50)))
		edit(t, dir, 40, func(l []string) []string { return l[:4] })
	}, kind: verify.Cut, entry: 44},
	{name: "tail cut in a line", change: func(t *testing.T, _ fixture, dir string) {
		must(t, os.Remove(segmentPath(dir, 50)))
		edit(t, dir, 40, func(l []string) []string { return append(l[:4], l[4][:30]) })
	}, kind: verify.Cut, entry: 44},
	{name: "file cut in a line", change: lines(30, func(l []string) []string { return append(l[:4], l[4][:30]) }), kind: verify.Cut, entry: 34},

	{name: "log put back with its checkpoint", change: remade(nil, 30, 1), kept: kept(60), kind: verify.Cut, entry: 30},
	{name: "checkpoint put back", change: nothing, kept: kept(60), kind: verify.Older, entry: 50},
	{name: "history made anew and signed", change: remade(map[int]string{5: "x05"}, 60, 1), kept: kept(30), kind: verify.Forked, entry: 0},
	{name: "history made anew and signed, kept is later", change: remade(map[int]string{55: "x55"}, 60, 1), kept: kept(60), kind: verify.Forked, entry: 0},
	{name: "history made anew behind what was kept", change: remade(map[int]string{35: "x35"}, 60, 1), kept: kept(30)},
	{name: "checkpoint of another log", change: overwrite(func(f fixture) []byte { return f.alien }, "checkpoint"), kind: verify.Foreign, entry: 0},
	{name: "kept checkpoint of another log", change: nothing, kept: func(f fixture) []byte { return f.alien }, kind: verify.Foreign, entry: 0},
	{name: "kept checkpoint is none", change: nothing, kept: func(fixture) []byte { return []byte("hello\n") }, kind: verify.Malformed, entry: 0},
	{name: "checkpoint is none", change: overwrite(func(fixture) []byte { return []byte("hello\n") }, "checkpoint"), kind: verify.Malformed, entry: 0},
	{name: "checkpoint's root changed", change: overwrite(func(f fixture) []byte {
		return []byte(strings.Replace(string(f.kept[30]), "\n30\n", "\n31\n", 1))
	}, "checkpoint"), kind: verify.WrongKey, entry: 0},
	{name: "checkpoint by a stranger", change: remade(nil, 60, 2), kind: verify.WrongKey, entry: 0},
	{name: "checkpoint by a key that follows", change: remade(nil, 60, 0), kind: verify.WrongKey, entry: 0}, // the first key ended at 20
	{name: "wrong public key", change: nothing, key: 2, kind: verify.WrongKey, entry: 0},
	{name: "keys are none", change: overwrite(func(fixture) []byte { return []byte("hello\n") }, "keys"), kind: verify.Malformed, entry: 0},
	{name: "keys of another log", change: overwrite(func(f fixture) []byte { return f.alienKeys }, "keys"), kind: verify.Foreign, entry: 0},
	{name: "signed behind a break", change: func(t *testing.T, f fixture, dir string) {
		must(t, os.WriteFile(filepath.Join(dir, "keys"), f.broken, 0o600))
		l := openLog(t, dir, 10)
		must(t, os.WriteFile(filepath.Join(dir, "checkpoint"), sign(t, l, 60, f.keys[3]), 0o600))
		must(t, l.Close())
	}, kind: verify.Broken, entry: 60},
	{name: "signed behind a break by the key that is trusted", change: func(t *testing.T, f fixture, dir string) {
		must(t, os.WriteFile(filepath.Join(dir, "keys"), f.broken, 0o600))
		l := openLog(t, dir, 10)
		must(t, os.WriteFile(filepath.Join(dir, "checkpoint"), sign(t, l, 60, f.keys[3]), 0o600))
		must(t, l.Close())
	}, key: 3},

	{name: "dropped", change: dropped(nothing)},
	{name: "dropped, kept before", change: dropped(nothing), kept: kept(10)},
	{name: "dropped, kept behind", change: dropped(nothing), kept: kept(30)},
	{name: "dropped, byte changed", change: dropped(lines(20, swap("r24", "x24"))), kind: verify.Changed, entry: 24},
	{name: "dropped, tree missing", change: dropped(file("tree", os.Remove)), kind: verify.Missing, entry: 0},
	{name: "dropped, tree damaged", change: dropped(file("tree", flip(30*32))), kind: verify.Changed, entry: 0}, // the root of the first 16
	{name: "dropped, mark missing", change: dropped(file("first", os.Remove)), kind: verify.Missing, entry: 0},
	{name: "dropped, mark moved", change: dropped(overwrite(func(fixture) []byte { return []byte("30\n") }, "first"))},
	{name: "dropped beyond what is signed", change: dropped(overwrite(func(fixture) []byte { return []byte("55\n") }, "first")), kind: verify.Removed, entry: 50},
	{name: "dropped, next file missing", change: dropped(file("0000000000000020.jsonl", os.Remove)), kind: verify.Missing, entry: 20},
}

// flip changes one byte of a file.
func flip(at int) func(path string) error {
	return func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text[at] ^= 1
		return os.WriteFile(path, text, 0o600)
	}
}

// trusted is the key that the case trusts.
func (c tampering) trusted(f fixture) *checkpoint.Key {
	if c.key < 0 {
		return nil
	}
	return &f.keys[c.key].Key
}

func (c tampering) keptNote(f fixture) []byte {
	if c.kept == nil {
		return nil
	}
	return c.kept(f)
}
