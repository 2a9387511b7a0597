package load

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// Pipeline returns a caller for each stream, which keeps its part of the operations
// that are under way on all: its Call reads one answer and sends the next operation, so
// that the time of a call is the pause between two answers and not how long one took.
// The pool is closed by Close, which ends the streams, as the end of ctx does. It has
// sent the call once, alone.
func Pipeline(ctx context.Context, t Target, w Work, connections, streams, underWay int) (*Pool, error) {
	conns, err := Dial(t, connections)
	if err != nil {
		return nil, err
	}
	pool := &Pool{Windowed: true}
	for _, conn := range conns {
		pool.close = append(pool.close, conn.Close)
	}
	c, err := w.prepare(ctx, func(ctx context.Context, c call, answer proto.Message) error {
		return describe(conns[0].Invoke(ctx, path(c.method), c.request, answer), t.Addr)
	})
	for i := range streams {
		if err != nil {
			break
		}
		var s *streamCaller
		if s, err = newStream(ctx, pb.NewCryptoClient(conns[i%len(conns)]), operationOf(c.request), t.Addr, share(underWay, streams, i)); err == nil {
			pool.Callers = append(pool.Callers, s)
			pool.close = append([]func() error{s.close}, pool.close...) // before its connection
		}
	}
	if err != nil {
		return nil, joinClose(err, pool)
	}
	return pool, nil
}

// share is what the i-th of n gets when a total is spread as evenly as it can be.
func share(total, n, i int) int { return (total + n - 1 - i) / n }

// streamCaller keeps a window of operations under way on a stream.
type streamCaller struct {
	stream    grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]
	cancel    context.CancelFunc
	addr      string
	operation *pb.Operation
	last      uint64 // id that was sent last
}

func newStream(ctx context.Context, client pb.CryptoClient, o *pb.Operation, addr string, window int) (*streamCaller, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := client.Pipeline(ctx)
	if err != nil {
		cancel()
		return nil, describe(err, addr)
	}
	s := &streamCaller{stream: stream, cancel: cancel, addr: addr, operation: o}
	for range window {
		if err := s.send(); err != nil {
			cancel()
			return nil, err
		}
	}
	return s, nil
}

// Call implements Caller. A context that ends meanwhile ends the stream: an answer that
// is late cannot be left to the next call.
func (s *streamCaller) Call(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.cancel)()
	answer, err := s.next()
	switch e := answer.GetResult().GetError(); {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%s: %w", s.addr, context.Cause(ctx))
	case errors.Is(err, ErrOverload): // not one refusal of many: there is no next answer
		return fmt.Errorf("%s ended the stream: %s", s.addr, err.Error())
	case err != nil:
		return err
	case e != nil:
		return itemError(fmt.Sprintf("operation %d of the stream", answer.Id), e)
	}
	return nil
}

// next reads an answer and sends an operation in its place, also where the answer is a
// refusal: as many as before are then under way.
func (s *streamCaller) next() (*pb.PipelineResponse, error) {
	answer, err := s.stream.Recv()
	if err != nil {
		return nil, describe(err, s.addr)
	}
	return answer, s.send()
}

func (s *streamCaller) send() error {
	s.last++
	err := s.stream.Send(&pb.PipelineRequest{Id: s.last, Operation: s.operation})
	if errors.Is(err, io.EOF) { // Recv knows why
		_, err = s.stream.Recv()
	}
	return describe(err, s.addr)
}

// close ends the stream; what is under way is lost.
func (s *streamCaller) close() error {
	s.cancel()
	return nil
}
