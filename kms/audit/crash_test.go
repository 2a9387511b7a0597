package audit

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary is its own child: what it does is named by childEnv, on the
// directory in childDirEnv.
const (
	childEnv    = "KEYWRIGHT_AUDIT_TEST_CHILD"
	childDirEnv = "KEYWRIGHT_AUDIT_TEST_DIR"
)

func TestMain(m *testing.M) {
	what, mode, isChild := strings.Cut(os.Getenv(childEnv), " ")
	if !isChild {
		os.Exit(m.Run())
	}
	child := map[string]func(dir string, mode Mode) error{"append": appendForEver, "limit": appendToLimit}[what]
	if err := child(os.Getenv(childDirEnv), Mode(mode)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func startChild(t *testing.T, what string, mode Mode, dir string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), childEnv+"="+what+" "+string(mode), childDirEnv+"="+dir)
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return command, bufio.NewScanner(out)
}

// appendForEver acknowledges each line on standard output.
func appendForEver(dir string, mode Mode) error {
	l, err := Open(dir, Options{Durability: mode, SegmentBytes: 200_000})
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := 0; ; i++ {
				e, d := operation(fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)), Hot
				if w == 0 {
					e, d = mutation(e.RequestID), Sync
				}
				sequence, err := l.Append(e, d)
				if err != nil {
					panic(err)
				}
				fmt.Printf("%d %s\n", sequence, e.RequestID) // one write: whole or not at all
			}
		})
	}
	group.Wait()
	return nil
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	for mode, least := range map[Mode]int{ModeInterval: 1000, ModeFsync: 500} { // which waits for the disk
		t.Run(string(mode), func(t *testing.T) { killAndRead(t, mode, least) })
	}
}

// killAndRead kills a process that appends, again and again, and looks for what it
// acknowledged: least lines at least.
func killAndRead(t *testing.T, mode Mode, least int) {
	dir := t.TempDir()
	acknowledged := map[uint64]string{}
	for round := range 6 {
		before := len(acknowledged)
		command, out := startChild(t, "append", mode, dir)
		kill := time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() })
		for out.Scan() {
			if len(acknowledged) == before { // how long it takes to start is no matter
				kill.Reset(time.Duration(150+37*round) * time.Millisecond)
			}
			var sequence uint64
			var id string
			if n, _ := fmt.Sscanf(out.Text(), "%d %s", &sequence, &id); n == 2 && strings.Count(id, "-") == 2 {
				acknowledged[sequence] = id
			}
		}
		kill.Stop()
		if err := command.Wait(); err == nil {
			t.Fatal("the child was not killed")
		}
		l := openLog(t, dir, Options{Durability: mode})
		found := checkLines(t, l)
		if cut := l.Recovered().Bytes; cut > 50_000 { // more than a batch
			t.Errorf("round %d: %d bytes were cut off, and told of", round, cut)
		}
		for sequence, id := range acknowledged {
			if sequence >= uint64(len(found)) || found[sequence].RequestID != id {
				t.Fatalf("round %d: line %d, acknowledged to %s, is lost", round, sequence, id)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < least {
		t.Fatalf("only %d lines were acknowledged: too few to prove anything", len(acknowledged))
	}
	t.Logf("%d acknowledged lines over 6 kills", len(acknowledged))
}

func TestFileSizeLimit(t *testing.T) {
	for _, mode := range []Mode{ModeInterval, ModeFsync} {
		command, out := startChild(t, "limit", mode, t.TempDir())
		for out.Scan() {
			t.Log(out.Text())
		}
		if err := command.Wait(); err != nil {
			t.Fatal(mode, err)
		}
	}
}

// appendToLimit meets a write that the system cuts short, then is let go on.
func appendToLimit(dir string, mode Mode) error {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	unlimited := limit.Cur
	limit.Cur = 100_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	l, err := Open(dir, Options{Durability: mode, ReserveBytes: 1000})
	if err != nil {
		return err
	}
	for err == nil {
		_, err = l.Append(operation("r"), Hot)
	}
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("refused with %w, want ErrUnavailable with EFBIG inside", err)
	}
	refused := l.Next()
	if err := wholeLines(dir, refused); err != nil {
		return err
	}
	limit.Cur = unlimited
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if sequence, err := l.Append(operation("r"), Hot); err != nil || sequence != refused {
		return fmt.Errorf("line %d: %w; want line %d", sequence, err, refused)
	}
	return errors.Join(l.Health(), l.Close(), wholeLines(dir, refused+1))
}

func wholeLines(dir string, want uint64) error {
	file, err := os.ReadFile(dir + "/0000000000000000.jsonl")
	if got := strings.Count(string(file), "\n"); err != nil || uint64(got) != want || !strings.HasSuffix(string(file), "}\n") {
		return fmt.Errorf("%d whole lines, want %d, or half a line behind them (%v)", got, want, err)
	}
	return nil
}
