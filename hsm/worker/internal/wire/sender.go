package wire

import (
	"errors"
	"io"
	"runtime"
	"sync"
)

// ErrClosed means that nothing more is sent.
var ErrClosed = errors.New("connection is closed")

// keptBuffer is the largest buffer that a Sender keeps for later.
const keptBuffer = 1 << 20

// Sender writes frames in the order in which Send got them, all that wait in one
// write. Safe for concurrent use. Run writes until Close.
type Sender struct {
	mu      sync.Mutex
	waiting []byte
	closed  bool
	wake    chan struct{}
}

// NewSender makes a Sender; Run has to be called.
func NewSender() *Sender { return &Sender{wake: make(chan struct{}, 1)} }

// Send queues a frame, whose body the function appends: ErrTooLong, ErrClosed. It
// does not wait for the peer; who sends bounds what is under way.
func (s *Sender) Send(kind Kind, call uint64, body func([]byte) []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	var err error
	s.waiting, err = Append(s.waiting, kind, call, body)
	s.nudge()
	return err
}

// Close lets Run end when all that waits was written.
func (s *Sender) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.nudge()
}

func (s *Sender) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes until Close, or until w fails.
func (s *Sender) Run(w io.Writer) error {
	var spare []byte
	for range s.wake {
		// Whoever is about to send gets to it first, and shares the write.
		runtime.Gosched()
		batch, closed := s.take(spare)
		if len(batch) > 0 {
			_, err := w.Write(batch)
			clear(batch)
			if err != nil {
				return err
			}
		}
		if closed {
			return nil
		}
		if spare = batch[:0]; cap(spare) > keptBuffer {
			spare = nil
		}
	}
	return nil
}

// take returns what waits, and leaves an empty buffer in its place.
func (s *Sender) take(spare []byte) (batch []byte, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, s.waiting = s.waiting, spare
	return batch, s.closed
}
