package wait

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPatienceEndsWithTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPatience(time.Second)
		defer p.Stop()
		for _, pause := range []time.Duration{0, 70 * time.Millisecond, time.Second, 330 * time.Millisecond} {
			time.Sleep(pause)
			release, gone := make(chan struct{}), make(chan bool)
			begun := time.Now()
			_, err := Patiently(t.Context(), p, func(l *Left) (int, error) {
				<-release
				gone <- l.Gone()
				return 0, nil
			})
			if took := time.Since(begun); !errors.Is(err, ErrStuck) || took < time.Second || took > 1250*time.Millisecond {
				t.Errorf("%v after %v", err, took)
			}
			close(release)
			if !<-gone {
				t.Error("the call was not told that nobody waits")
			}
		}
	})
}

func TestPatientlyReturnsWhatComesFirst(t *testing.T) {
	p := NewPatience(time.Minute)
	defer p.Stop()
	got, err := Patiently(t.Context(), p, func(l *Left) (string, error) {
		if l.Gone() {
			t.Error("gone at once")
		}
		return "value", nil
	})
	if got != "value" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	cause := errors.New("cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	defer close(release)
	_, err = Patiently(ctx, p, func(*Left) (string, error) {
		cancel(cause)
		<-release
		return "", nil
	})
	if !errors.Is(err, cause) {
		t.Fatalf("error = %v, want the context's cause", err)
	}
}

func TestPatienceKeepsGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPatience(time.Second)
		defer p.Stop()
		used := map[string]bool{}
		for range 3 {
			for _, id := range fiveAtOnce(t, p) {
				used[id] = true
			}
		}
		if len(used) != 5 {
			t.Errorf("%d goroutines ran 5 calls at a time", len(used))
		}
		time.Sleep(10 * time.Second)
		for _, id := range fiveAtOnce(t, p) {
			if used[id] {
				t.Errorf("goroutine %s is kept after a long pause", id)
			}
		}
	})
}

// fiveAtOnce returns the names of the goroutines that ran five calls.
func fiveAtOnce(t *testing.T, p *Patience) (ids []string) {
	names, release := make(chan string, 5), make(chan struct{})
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() {
			_, _ = Patiently(t.Context(), p, func(*Left) (int, error) {
				stack := make([]byte, 32) // "goroutine 7 [running]: ..."
				names <- strings.Fields(string(stack[:runtime.Stack(stack, false)]))[1]
				<-release
				return 0, nil
			})
		})
	}
	for range 5 {
		ids = append(ids, <-names)
	}
	close(release)
	group.Wait()
	synctest.Wait()
	return ids
}
