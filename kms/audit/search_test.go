package audit

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit/internal/index"
)

// searchable makes a log of several segments and several blocks in each.
func searchable(t testing.TB, dir string, lines int) *Log {
	t.Helper()
	l := openLog(t, dir, Options{SegmentBytes: 300_000})
	for i := range lines {
		e := &Entry{
			Time: noon.Add(time.Duration(i-i%7) * time.Second), RequestID: fmt.Sprintf("r%d", i), Principal: fmt.Sprintf("p%d", i%13),
			TokenID: fmt.Sprintf("t%d", i/1000), Outcome: []string{"OK", "OK", "NOT_FOUND"}[i%3],
			Action: []string{"Encrypt", "Decrypt"}[i/5%2], Namespace: fmt.Sprintf("n%d", i%5), Key: fmt.Sprintf("k%d", i/900), KeyID: uint64(1 + i/900),
		}
		if i%50 == 0 {
			e.Batch = []BatchCount{{Action: "Sign", Namespace: "n9", Key: fmt.Sprintf("b%d", i), KeyID: uint64(1000 + i)}, {Action: "MAC", Namespace: "n8"}}
		}
		if i%997 == 0 {
			e.RequestID = "with \"quotes\" and \u202e"
		}
		mustAppend(t, l, e, Hot)
	}
	return l
}

var searches = []Filter{
	{RequestID: "r0"}, {RequestID: "r1"}, {RequestID: "r1777"}, {RequestID: "r2999"}, {RequestID: "none"}, {RequestID: "with \"quotes\" and \u202e"},
	{Principal: "p3", Outcome: "NOT_FOUND"}, {TokenID: "t2"}, {TokenID: "t2", Limit: 5}, {Action: "Sign"}, {Action: "Sign", Namespace: "n9", Key: "b1500"},
	{Namespace: "n9", Key: "k1"}, {Namespace: "n1", Key: "k2"}, {Namespace: "n8", Action: "Sign"}, {KeyID: 3}, {KeyID: 2500}, {KeyID: 2500, Action: "MAC"},
	{Since: noon.Add(1000 * time.Second), Until: noon.Add(1100 * time.Second)}, {Until: noon.Add(10 * time.Second)}, {Since: noon.Add(2990 * time.Second)},
	{Since: noon.Add(1000*time.Second + time.Nanosecond), Limit: 3}, {From: 700, To: 1900, Principal: "p1"}, {From: 2995}, {To: 5}, {Principal: "p7", Limit: 40},
}

// TestSearchFindsAll: with an index, without, with a broken one, and while it is
// made, a search finds what reading every line finds.
func TestSearchFindsAll(t *testing.T) {
	const lines = 3000
	dir := t.TempDir()
	l := searchable(t, dir, lines)
	if l.Stats().Segments < 3 {
		t.Fatalf("%d segments", l.Stats().Segments)
	}
	all := checkLines(t, l)
	damages := []struct {
		name   string
		damage func(path string) error
	}{
		{"as written", func(string) error { return nil }},
		{"reopened", func(string) error { return nil }},
		{"removed", os.Remove},
		{"cut", func(path string) error { return os.Truncate(path, 700) }},
		{"garbage", func(path string) error { return os.WriteFile(path, []byte("garbage"), 0o600) }},
		{"in the way", func(path string) error { return os.Mkdir(path+".new", 0o700) }},
	}
	for i, test := range damages {
		if i > 0 {
			var paths []string
			for _, s := range l.segments {
				paths = append(paths, l.path(s.indexName()))
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = openLog(t, dir, Options{})
			for _, path := range paths {
				if err := test.damage(path); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, f := range searches {
			for _, f.Newest = range []bool{false, true} {
				want := naive(all, f)
				if got := entries(t, l, f); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %+v finds %v, want %v", test.name, f, sequences(got), sequences(want))
				}
			}
		}
	}
}

// naive is the filter's meaning in the plainest words.
func naive(all []Entry, f Filter) []Entry {
	var found []Entry
	for _, e := range all {
		if e.Sequence >= f.From && (f.To == 0 || e.Sequence < f.To) && f.admits(&e) {
			found = append(found, e)
		}
	}
	switch {
	case f.Limit == 0 || len(found) <= f.Limit:
		return found
	case f.Newest:
		return found[len(found)-f.Limit:]
	}
	return found[:f.Limit]
}

// TestSearchFindsRepairedText: what was no UTF-8 is found as the line has it,
// before and after the index is made anew.
func TestSearchFindsRepairedText(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	for i := range 2000 { // so that the line is in a finished block
		e := operation(fmt.Sprint(i))
		if i == 100 {
			e.RequestID = "a\xff\xfeb"
		}
		mustAppend(t, l, e, Hot)
	}
	for range 2 {
		if found := entries(t, l, Filter{RequestID: "a\ufffd\ufffdb"}); len(found) != 1 || found[0].Sequence != 100 {
			t.Errorf("found %v", sequences(found))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, dir, Options{})
	}
}

// TestSearchReadsLittle: a request is found by reading few of the blocks.
func TestSearchReadsLittle(t *testing.T) {
	const lines = 20_000
	l := searchable(t, t.TempDir(), lines)
	read := 0
	for id := 1; id < lines; id += 1003 {
		q := newQuery(&Filter{RequestID: fmt.Sprintf("r%d", id)})
		segments, next := l.snapshot()
		for i, s := range segments {
			end, last := endOf(segments, i, next)
			for _, p := range l.spans(t.Context(), s, s.first, end, last, q) {
				read += int(p.to - p.from)
			}
		}
	}
	if searches := lines / 1003; read > searches*3000 {
		t.Errorf("%d searches read %d lines", searches, read)
	}
}

// TestIndexOfOtherLines: an index that is not of this segment's lines
// does not lead astray.
func TestIndexOfOtherLines(t *testing.T) {
	dir := t.TempDir()
	l := searchable(t, dir, 3000)
	s := l.segments[0]
	w, err := index.Create(l.path(s.indexName()), 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := range l.segments[1].first { // other sizes: the offsets are wrong
		if err := w.Add(int64(n%7), noon.UnixMicro(), []index.Term{index.Of(termPrincipal, "p3")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := naive(checkLines(t, l), Filter{Principal: "p3"})
	if got := entries(t, l, Filter{Principal: "p3"}); !slices.Equal(sequences(got), sequences(want)) {
		t.Errorf("found %d lines, want %d", len(got), len(want))
	}
}
