package api

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/gate"
)

// pipelineRoom bounds the operations under way on one stream: what was read and is not
// answered yet. Beyond it, as when the client does not read, nothing more is read.
const pipelineRoom = 64

// pipeline carries operations on one stream. One goroutine reads; a crew of others
// performs and answers.
type pipeline struct {
	stream  *gate.OpenStream
	service *kms.Service
	one     *gate.Unary[pb.Operation, kms.Performed]
	room    chan struct{} // a place for each operation under way
	crew    *crew[*pb.PipelineRequest]
	sending sync.Mutex
	ctx     context.Context
	cancel  context.CancelCauseFunc
}

func (a *API) cryptoStreams() []grpc.StreamDesc {
	return []grpc.StreamDesc{{StreamName: "Pipeline", Handler: a.pipeline, ServerStreams: true, ClientStreams: true}}
}

func (a *API) pipeline(_ any, stream grpc.ServerStream) error {
	p := &pipeline{stream: stream.(*gate.OpenStream), service: a.service, one: row(a, "Pipeline", a.perform),
		room: make(chan struct{}, pipelineRoom)}
	p.ctx, p.cancel = context.WithCancelCause(stream.Context())
	defer p.cancel(nil)
	p.crew = newCrew(p.ctx, pipelineRoom, p.answer)
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
		p.crew.finish() // what is left
	case <-p.ctx.Done():
		err = context.Cause(p.ctx)
	}
	p.crew.wait()
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
		if !p.enter() {
			return context.Cause(p.ctx)
		}
		p.crew.give(q)
	}
}

// enter waits for a place; there is mostly one.
func (p *pipeline) enter() bool {
	select {
	case p.room <- struct{}{}:
		return true
	default:
	}
	select {
	case p.room <- struct{}{}:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// maxName is room for a stream's request id, and an operation's number after it.
const maxName = 128

// share is how many operations are recorded and answered together, if as many wait.
const share = 16

// asked is an operation on its way to its answer.
type asked struct {
	id        uint64
	operation *pb.Operation
	arrival   gate.Arrival
	refused   error // by the gate, so that nothing was performed
}

// answer performs an operation, and with it others that wait, and answers them.
func (p *pipeline) answer(first *pb.PipelineRequest, more func() (*pb.PipelineRequest, bool)) (n int, took time.Duration) {
	began := time.Now()
	all, performed := make([]asked, 0, share), make([]kms.Performed, 0, share)
	for q, waits := first, true; waits; q, waits = more() {
		a := p.asked(q)
		// Not p.ctx: when the server drains, what was begun is finished.
		done, err := p.one.Serve(p.stream.Transport(), a.arrival, a.operation, nil)
		if err == nil {
			performed = append(performed, *done)
		}
		a.refused = err
		if all = append(all, a); len(all) == share {
			break
		}
	}
	results := p.service.Record(performed)
	took = time.Since(began)
	p.send(all, results)
	return len(all), took
}

func (p *pipeline) asked(q *pb.PipelineRequest) asked {
	a := asked{id: q.Id, operation: q.Operation, arrival: p.stream.Arrival()}
	var name [maxName]byte
	a.arrival.RequestID = string(strconv.AppendUint(append(append(name[:0], a.arrival.RequestID...), '.'), q.Id, 10))
	if a.operation == nil {
		a.operation = &pb.Operation{}
	}
	return a
}

// send gives answers, without a place among the calls in flight, so that a client that
// does not read holds up nobody else. The results are of those that were not refused.
func (p *pipeline) send(all []asked, results []kms.Result) {
	p.sending.Lock()
	defer p.sending.Unlock()
	for _, a := range all {
		var result kms.Result
		if result.Err = a.refused; a.refused == nil {
			result, results = results[0], results[1:]
			result.Err = p.one.Failed(p.ctx, a.arrival, result.Err)
		}
		if err := p.stream.SendMsg(&pb.PipelineResponse{Id: a.id, Result: response(a.operation, result)}); err != nil {
			p.cancel(err)
			return
		}
		<-p.room
	}
}
