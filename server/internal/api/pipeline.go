package api

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"google.golang.org/grpc"

	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/translate"
)

// pipelineWorkers bounds the operations in flight on one stream. When all are
// busy, or wait for a client that does not read, nothing more is read from it.
const pipelineWorkers = 64

// pipeline carries operations on one stream. One goroutine reads; workers, which
// are started as they are needed and stay until the end, answer.
type pipeline struct {
	stream *gate.OpenStream
	one    *gate.Unary[pb.Operation, pb.OperationResult]
	work   chan *pb.PipelineRequest
	ctx    context.Context
	cancel context.CancelCauseFunc

	sending sync.Mutex

	mu      sync.Mutex // guards the following
	started int
	ended   bool
	workers sync.WaitGroup
}

func (a *API) cryptoStreams() []grpc.StreamDesc {
	return []grpc.StreamDesc{{StreamName: "Pipeline", Handler: a.pipeline, ServerStreams: true, ClientStreams: true}}
}

func (a *API) pipeline(_ any, stream grpc.ServerStream) error {
	p := &pipeline{stream: stream.(*gate.OpenStream), one: row(a, "Pipeline", a.perform),
		work: make(chan *pb.PipelineRequest)}
	p.ctx, p.cancel = context.WithCancelCause(stream.Context())
	defer p.cancel(nil)
	return p.run()
}

// run reads in a goroutine of its own, because reading cannot be interrupted
// but by returning from here.
func (p *pipeline) run() error {
	finished := make(chan error, 1)
	go func() { finished <- p.read() }()
	var err error
	select {
	case err = <-finished:
		close(p.work) // workers finish what is left
	case <-p.ctx.Done():
		err = context.Cause(p.ctx)
	}
	p.end()
	if errors.Is(err, io.EOF) {
		return p.failure()
	}
	return err
}

// failure is why answers could not be sent, nil if they could.
func (p *pipeline) failure() error {
	if p.ctx.Err() == nil {
		return nil
	}
	return context.Cause(p.ctx)
}

func (p *pipeline) read() error {
	for {
		q := new(pb.PipelineRequest)
		if err := gate.Receive(p.stream.RecvMsg, q); err != nil {
			return err
		}
		if err := p.dispatch(q); err != nil {
			return err
		}
	}
}

// dispatch hands q to a worker that is free, starts one if none is, and waits
// if there can be no more.
func (p *pipeline) dispatch(q *pb.PipelineRequest) error {
	select {
	case p.work <- q:
		return nil
	default:
		p.grow()
	}
	select {
	case p.work <- q:
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

func (p *pipeline) grow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended && p.started < pipelineWorkers {
		p.started++
		p.workers.Go(p.answerAll)
	}
}

// end lets no more workers start and waits for those there are.
func (p *pipeline) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.workers.Wait()
}

func (p *pipeline) answerAll() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case q, more := <-p.work:
			if !more {
				return
			}
			p.answer(q)
		}
	}
}

func (p *pipeline) answer(q *pb.PipelineRequest) {
	a := p.stream.Arrival()
	a.RequestID += "." + strconv.FormatUint(q.Id, 10)
	operation := q.Operation
	if operation == nil {
		operation = &pb.Operation{}
	}
	// Not p.ctx: when the server drains, what was begun is finished.
	result, err := p.one.Serve(p.stream.Transport(), a, operation, nil)
	if err != nil {
		result = translate.Failure(gate.OperationError(err))
	}
	p.send(&pb.PipelineResponse{Id: q.Id, Result: result})
}

// send is called without a place among the calls in flight, so that a client
// that does not read holds up nobody else.
func (p *pipeline) send(response *pb.PipelineResponse) {
	p.sending.Lock()
	defer p.sending.Unlock()
	if err := p.stream.SendMsg(response); err != nil {
		p.cancel(err)
	}
}
