package kms

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/publish"
)

// defaultReceiverInterval is how often a receiver gets a checkpoint, if there is a
// new one.
const defaultReceiverInterval = 10 * time.Second

// Receiver is where checkpoints are sent, so that someone else knows what the log
// held.
type Receiver struct {
	Publisher publish.Publisher
	// Interval is the least time between two checkpoints; 0 is ten seconds.
	Interval time.Duration
}

// ReceiverStatus says how sending to a receiver goes.
type ReceiverStatus struct {
	Name    string
	Size    uint64    // of the last checkpoint that it took
	Time    time.Time // when it took it
	Problem string    // "" while it takes them
}

// receiver is a Receiver at work.
type receiver struct {
	Receiver
	status atomic.Pointer[ReceiverStatus]
}

func newReceivers(configured []Receiver) []*receiver {
	all := make([]*receiver, len(configured))
	for i, c := range configured {
		if c.Interval <= 0 {
			c.Interval = defaultReceiverInterval
		}
		all[i] = &receiver{Receiver: c}
		all[i].status.Store(&ReceiverStatus{Name: c.Publisher.Name()})
	}
	return all
}

// feed sends new checkpoints to one receiver until ctx ends.
func (s *Service) feed(ctx context.Context, r *receiver) {
	tick := time.NewTicker(r.Interval)
	defer tick.Stop()
	for {
		s.publish(ctx, r)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// lastPublish bounds how long a server that stops waits for the receivers.
const lastPublish = 3 * time.Second

// publishLast sends the last checkpoint of a server that stops.
func (s *Service) publishLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastPublish)
	defer cancel()
	var sending sync.WaitGroup
	for _, r := range s.receivers {
		sending.Go(func() { s.publish(ctx, r) })
	}
	sending.Wait()
}

// publish sends the newest checkpoint, unless the receiver has it.
func (s *Service) publish(ctx context.Context, r *receiver) {
	before := r.status.Load()
	note, size := s.audit.Checkpoint()
	if note == nil || size == before.Size && before.Problem == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	err := r.Publisher.Publish(ctx, note, size, s.audit)
	if err == nil {
		r.status.Store(&ReceiverStatus{Name: before.Name, Size: size, Time: s.now()})
		if before.Problem != "" {
			s.log.Info("checkpoints are taken again", "receiver", before.Name)
		}
		return
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return // the server stops
	}
	r.status.Store(&ReceiverStatus{Name: before.Name, Size: before.Size, Time: before.Time, Problem: err.Error()})
	if before.Problem == "" {
		s.noteRefusal(before.Name, err)
	}
}

// noteRefusal tells that a receiver does not take checkpoints: a witness that saw
// another history has its place in the audit log too.
func (s *Service) noteRefusal(name string, refusal error) {
	s.log.Error("a checkpoint was not taken", "receiver", name, "error", refusal)
	if !errors.Is(refusal, publish.ErrForked) {
		return
	}
	_, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: "WitnessSawAnotherLog",
		Outcome: string(DataLoss), Details: map[string]string{"witness": name}}, audit.Sync)
	if err != nil {
		s.log.Error("a witness's refusal was not logged", "error", err)
	}
}

func (s *Service) receiverStatus() []ReceiverStatus {
	all := make([]ReceiverStatus, len(s.receivers))
	for i, r := range s.receivers {
		all[i] = *r.status.Load()
	}
	return all
}
