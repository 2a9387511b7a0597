package wait_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keywright/keywright/hsm/internal/wait"
)

func TestForReturnsTheResult(t *testing.T) {
	failure := errors.New("failure")
	got, err := wait.For(t.Context(), func() (int, error) { return 7, failure })
	if got != 7 || !errors.Is(err, failure) {
		t.Fatalf("For = %d, %v", got, err)
	}
}

func TestForLeavesWhatOutlastsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := wait.Bounded(t.Context(), time.Second)
		defer cancel()
		var ended atomic.Bool
		_, err := wait.For(ctx, func() (int, error) {
			time.Sleep(time.Minute)
			ended.Store(true)
			return 7, nil
		})
		if !errors.Is(err, wait.ErrStuck) || ended.Load() {
			t.Fatalf("error = %v, ended = %v", err, ended.Load())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !ended.Load() {
			t.Fatal("the function did not go on by itself")
		}
	})
}

func TestBoundsTellWhoEnded(t *testing.T) {
	caller, leave := context.WithCancel(t.Context())
	bounded, cancel := wait.Bounded(caller, time.Hour)
	defer cancel()
	detached, cancel := wait.Detached(caller, time.Hour)
	defer cancel()
	leave()
	if cause := context.Cause(bounded); !errors.Is(cause, context.Canceled) {
		t.Errorf("cause = %v, want the caller's", cause)
	}
	if err := detached.Err(); err != nil {
		t.Errorf("detached ended with its caller: %v", err)
	}
}

func TestSemaphore(t *testing.T) {
	s := wait.NewSemaphore(1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Acquire(ended); err != nil {
		t.Fatalf("a free place was refused: %v", err)
	}
	if err := s.Acquire(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("error = %v, want the context's", err)
	}
	s.Release()
	if err := s.Acquire(t.Context()); err != nil || len(s) != 1 || cap(s) != 1 {
		t.Fatalf("Acquire = %v, %d of %d", err, len(s), cap(s))
	}
}
