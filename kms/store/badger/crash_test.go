package badger

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/store"
)

const (
	crashDirectory = "KEYWRIGHT_TEST_CRASH_DIRECTORY"
	crashWriters   = 8
	crashRounds    = 10
)

// commitForever is the victim. Each writer counts up in a pair of records, each
// count expecting the one before, and prints what was acknowledged. Now and then
// a large value makes badger change its files.
func commitForever(dir string) {
	s, err := Open(Options{Dir: dir})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	for w := range crashWriters {
		go countUp(s, w)
	}
	select {}
}

func countUp(s *Store, writer int) {
	ctx := context.Background()
	left, right := pair(writer)
	for {
		last, err := s.Get(ctx, left)
		if err != nil && last.Revision != 0 {
			fmt.Println("get:", err)
			os.Exit(1)
		}
		n := count(last.Value) + 1
		value := countValue(n)
		r, err := s.Commit(ctx, store.Txn{
			Expect: []store.Expect{{Key: left, Revision: last.Revision}},
			Puts:   []store.Put{{Key: left, Value: value}, {Key: right, Value: value}},
		})
		if err != nil {
			fmt.Println("commit:", err)
			os.Exit(1)
		}
		os.Stdout.WriteString(fmt.Sprintf("ack %d %d %d\n", writer, n, r))
	}
}

func pair(writer int) (left, right string) {
	return fmt.Sprintf("pair/%d/left", writer), fmt.Sprintf("pair/%d/right", writer)
}

// countValue is the number in text and, one time in sixteen, 64 KiB of padding.
func countValue(n int) []byte {
	text := strconv.Itoa(n)
	if n%16 == 0 {
		text += strings.Repeat(" ", 64<<10)
	}
	return []byte(text)
}

func count(value []byte) int {
	n, _ := strconv.Atoi(string(bytes.TrimSpace(value)))
	return n
}

// TestKilled kills a committing process again and again. Whatever it
// acknowledged must be there, whole, in order, and replayed to watchers.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	var acked acknowledged
	var head store.Revision
	for round := range crashRounds {
		pause := time.Duration(50+rand.IntN(250)) * time.Millisecond
		before := len(acked.byRevision)
		runVictim(t, dir, pause, &acked)
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatalf("round %d: Open: %v", round, err)
		}
		acked.check(t, s)
		head = checkReplay(t, s, head, &acked)
		if err := s.Close(); err != nil {
			t.Fatalf("round %d: Close: %v", round, err)
		}
		if len(acked.byRevision) == before {
			t.Logf("round %d: killed before the first acknowledgement", round)
		}
	}
	if len(acked.byRevision) < 100 {
		t.Fatalf("only %d acknowledged transactions: too few to say anything", len(acked.byRevision))
	}
	t.Logf("%d transactions acknowledged over %d kills, none lost", len(acked.byRevision), crashRounds)
}

// acknowledged is what the victims reported.
type acknowledged struct {
	last       [crashWriters]int
	byRevision map[store.Revision]string // "writer count"
}

func runVictim(t *testing.T, dir string, pause time.Duration, acked *acknowledged) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDirectory+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if pause > 0 { // from the first line on, so that a slow start is no idle round
			time.AfterFunc(pause, func() { cmd.Process.Kill() })
			pause = 0
		}
		acked.read(t, lines.Text())
	}
	cmd.Wait() // it was killed
}

func (a *acknowledged) read(t *testing.T, line string) {
	t.Helper()
	var writer, n int
	var r store.Revision
	if _, err := fmt.Sscanf(line, "ack %d %d %d", &writer, &n, &r); err != nil {
		t.Fatalf("victim says %q", line)
	}
	if a.byRevision == nil {
		a.byRevision = map[store.Revision]string{}
	}
	if other, twice := a.byRevision[r]; twice {
		t.Fatalf("revision %d given to %q and %d %d", r, other, writer, n)
	}
	a.byRevision[r] = fmt.Sprint(writer, " ", n)
	a.last[writer] = n
}

// check compares the pairs: the last acknowledged count, or the one in flight
// when the process died.
func (a *acknowledged) check(t *testing.T, s *Store) {
	t.Helper()
	for writer, last := range a.last {
		l, r := pair(writer)
		left, errLeft := s.Get(t.Context(), l)
		right, errRight := s.Get(t.Context(), r)
		if last > 0 && (errLeft != nil || errRight != nil) {
			t.Fatalf("writer %d lost its records: %v, %v", writer, errLeft, errRight)
		}
		if left.Revision != right.Revision || !bytes.Equal(left.Value, right.Value) {
			t.Fatalf("writer %d: half a transaction: %d and %d", writer, left.Revision, right.Revision)
		}
		if n := count(left.Value); n != last && n != last+1 {
			t.Fatalf("writer %d: count %d was acknowledged, %d is stored", writer, last, n)
		}
		a.last[writer] = count(left.Value) // one in flight may have been made durable
	}
}

// checkReplay watches from a head of an earlier life up to the present one, which
// it returns.
func checkReplay(t *testing.T, s *Store, from store.Revision, acked *acknowledged) store.Revision {
	t.Helper()
	head, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for r := range acked.byRevision {
		if r > head {
			t.Fatalf("revision %d was acknowledged, the store is at %d", r, head)
		}
	}
	if head == from {
		return head
	}
	seen := max(from, head-min(head, DefaultKeepRevisions))
	for changes, err := range s.Watch(t.Context(), seen) {
		if err != nil || changes.Revision != seen+1 || len(changes.Events) != 2 {
			t.Fatalf("watch after %d: revision %d, %d events, %v", seen, changes.Revision, len(changes.Events), err)
		}
		var writer int
		fmt.Sscanf(changes.Events[0].Key, "pair/%d/", &writer)
		got := fmt.Sprint(writer, " ", count(changes.Events[1].Value))
		if want, ok := acked.byRevision[changes.Revision]; ok && got != want {
			t.Fatalf("watch shows %q at %d, acknowledged was %q", got, changes.Revision, want)
		}
		if seen++; seen == head {
			break
		}
	}
	return head
}
