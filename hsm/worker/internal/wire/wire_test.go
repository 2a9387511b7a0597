package wire

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// collect sends frames through a Sender and reads them back.
func collect(t *testing.T, frames []Frame) []Frame {
	t.Helper()
	a, b := net.Pipe()
	s := NewSender()
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Run(a); err != nil {
			t.Error(err)
		}
		_ = a.Close()
	})
	for _, f := range frames {
		if err := s.Send(f.Kind, f.Call, func(to []byte) []byte { return append(to, f.Body...) }); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if err := s.Send(Answer, 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("sent after Close: %v", err)
	}
	var got []Frame
	for r := NewReader(b); ; {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
	group.Wait()
	return got
}

func TestFramesArriveInOrder(t *testing.T) {
	var sent []Frame
	for i := range 300 {
		sent = append(sent, Frame{Kind: Request, Call: uint64(i), Body: bytes.Repeat([]byte{byte(i)}, i*i)})
	}
	sent = append(sent, Frame{Kind: Answer, Call: math.MaxUint64, Body: make([]byte, MaxFrame-headerSize)})
	got := collect(t, sent)
	if len(got) != len(sent) {
		t.Fatalf("%d frames, want %d", len(got), len(sent))
	}
	for i := range sent {
		if got[i].Kind != sent[i].Kind || got[i].Call != sent[i].Call || !bytes.Equal(got[i].Body, sent[i].Body) {
			t.Fatalf("frame %d differs", i)
		}
	}
}

func TestFrameTooLong(t *testing.T) {
	s := NewSender()
	err := s.Send(Request, 1, func(to []byte) []byte { return append(to, make([]byte, MaxFrame-headerSize+1)...) })
	if !errors.Is(err, ErrTooLong) {
		t.Errorf("error = %v", err)
	}
	if err := s.Send(Request, 2, nil); err != nil {
		t.Error(err)
	}
	batch, _ := s.take(nil)
	f, err := NewReader(bytes.NewReader(batch)).Next()
	if err != nil || f.Call != 2 {
		t.Errorf("frame %+v, %v: a frame that was refused was sent in part", f, err)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	good, err := Append(nil, Answer, 7, func(to []byte) []byte { return append(to, "body"...) })
	if err != nil {
		t.Fatal(err)
	}
	change := func(i int, b byte) []byte {
		c := bytes.Clone(good)
		c[i] = b
		return c
	}
	for name, c := range map[string]struct {
		stream []byte
		want   error
	}{
		"version":      {change(4, 2), ErrNonsense},
		"no kind":      {change(5, 0), ErrNonsense},
		"unknown kind": {change(5, byte(kindsBound)), ErrNonsense},
		"too long":     {change(0, 0xff), ErrNonsense},
		"too short":    {change(3, headerSize-1), ErrNonsense},
		"cut":          {good[:len(good)-1], io.ErrUnexpectedEOF},
		"cut body":     {good[:lengthSize+headerSize], io.ErrUnexpectedEOF},
		"cut head":     {good[:3], io.ErrUnexpectedEOF},
		"nothing":      {nil, io.EOF},
	} {
		_, err := NewReader(iotest.OneByteReader(bytes.NewReader(c.stream))).Next()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error = %v, want %v", name, err, c.want)
		}
	}
}

// What went through is overwritten, on both sides.
func TestBuffersAreOverwritten(t *testing.T) {
	secret := []byte("a secret in a frame")
	s := NewSender()
	if err := s.Send(PIN, 0, func(to []byte) []byte { return append(to, secret...) }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	w := &keeper{}
	if err := s.Run(w); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(w.seen, secret) {
		t.Error("the Sender keeps the frame")
	}
	if !bytes.Contains(w.copied, secret) {
		t.Error("the frame was not written")
	}
	r := NewReader(bytes.NewReader(append(w.copied, 0)))
	f, err := r.Next()
	if err != nil || !bytes.Equal(f.Body, secret) {
		t.Fatalf("frame %v, %v", f, err)
	}
	f.Body = nil
	r.buffered.Reset(bytes.NewReader(nil))
	left, _ := r.buffered.Peek(len(w.copied)) // there is nothing to be read, but the buffer
	if bytes.Contains(left[:cap(left)], secret) {
		t.Error("the Reader keeps the frame")
	}
}

// keeper keeps what it was given, and a copy.
type keeper struct{ seen, copied []byte }

func (k *keeper) Write(p []byte) (int, error) {
	k.seen, k.copied = p, bytes.Clone(p)
	return len(p), nil
}

func TestBodyRoundTrip(t *testing.T) {
	to := AppendUint32(nil, 7)
	to = AppendUint64(to, math.MaxUint64)
	to = AppendDuration(to, 1500*time.Microsecond)
	to = AppendDuration(to, 1)
	to = AppendDuration(to, -time.Hour)
	to = AppendBool(to, true)
	to = AppendBytes(to, "text")
	to = AppendBytes(to, []byte(nil))
	to = append(to, "fixed"...)
	b := NewBody(to)
	var fixed [5]byte
	if b.Uint32() != 7 || b.Uint64() != math.MaxUint64 || b.Duration() != 1500*time.Microsecond || b.Duration() != time.Microsecond ||
		b.Duration() != 0 || !b.Bool() || b.String() != "text" || b.Bytes() != nil {
		t.Error("other values came back")
	}
	b.Fixed(fixed[:])
	if string(fixed[:]) != "fixed" || b.Done() != nil {
		t.Errorf("%q, %v", fixed, b.Done())
	}
	for cut := range to {
		if b := NewBody(to[:cut]); readAll(b) == nil {
			t.Errorf("the first %d bytes were taken for all", cut)
		}
	}
	if readAll(NewBody(append(to, 0))) == nil {
		t.Error("a byte behind the last value was taken")
	}
}

func readAll(b *Body) error {
	b.Uint32()
	b.Uint64()
	for range 3 {
		b.Duration()
	}
	b.Bool()
	b.Bytes()
	b.Bytes()
	b.Fixed(make([]byte, 5))
	return b.Done()
}
