package load

import (
	"cmp"
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// Pipeline returns a caller for each stream, which together keep so many operations
// under way: a Call reads one answer and sends the next operation, so that the time of a
// call is the pause between two answers and not how long one took. The pool is closed
// by Close, which ends the streams, as the end of ctx does. It has sent the call once,
// alone.
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
		window := underWay / streams
		if i < underWay%streams {
			window++
		}
		var s *streamCaller
		if s, err = newStream(ctx, pb.NewCryptoClient(conns[i%len(conns)]), operationOf(c.request), t.Addr, window); err == nil {
			pool.Callers = append(pool.Callers, s)
			pool.close = append([]func() error{s.close}, pool.close...) // before its connection
		}
	}
	if err != nil {
		return nil, joinClose(err, pool)
	}
	return pool, nil
}

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

// Call implements Caller. Its context ends no call: interrupt and that of Pipeline do.
func (s *streamCaller) Call(context.Context) error {
	answer, err := s.stream.Recv()
	if err != nil {
		return describe(err, s.addr)
	}
	return cmp.Or(s.send(), itemError(answer.GetResult(), "stream", answer.Id))
}

// interrupt ends the stream, and a call that waits for it.
func (s *streamCaller) interrupt() { s.cancel() }

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
