package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// streams answers Encrypt, and what a test says in a stream.
type streams struct {
	pb.UnimplementedCryptoServer
	answer func(id uint64) *pb.OperationResult // nil: no answer, ever
	end    error                               // of a stream, after its first operation
	opened atomic.Int64
	sent   atomic.Int64 // operations that were read
}

func (s *streams) Encrypt(context.Context, *pb.EncryptRequest) (*pb.EncryptResponse, error) {
	return new(pb.EncryptResponse), nil
}

func (s *streams) Pipeline(stream grpc.BidiStreamingServer[pb.PipelineRequest, pb.PipelineResponse]) error {
	s.opened.Add(1)
	for {
		q, err := stream.Recv()
		if err != nil {
			return err
		}
		s.sent.Add(1)
		if s.end != nil {
			return s.end
		}
		if s.answer == nil {
			continue
		}
		if err := stream.Send(&pb.PipelineResponse{Id: q.Id, Result: s.answer(q.Id)}); err != nil {
			return err
		}
	}
}

// serveGRPC serves c on loopback while the test runs.
func serveGRPC(t *testing.T, c pb.CryptoServer) Target {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterCryptoServer(g, c)
	go g.Serve(listener) //nolint:errcheck // it ends with Stop
	t.Cleanup(g.Stop)
	return Target{Addr: listener.Addr().String(), Plaintext: true}
}

func refused(code codes.Code, status string) *pb.OperationResult {
	return &pb.OperationResult{Result: &pb.OperationResult_Error{Error: &pb.OperationError{Code: int32(code), Status: status, Message: "no\nmore"}}}
}

var encrypt = Work{Operation: "encrypt", Namespace: "n", Key: "k", Payload: 1}

func TestContextEndsAStreamThatIsNotAnswered(t *testing.T) {
	target := serveGRPC(t, &streams{})
	pool, err := Pipeline(t.Context(), target, encrypt, 1, 2, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	why := errors.New("still not answered")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
	defer cancel()
	if err := pool.Callers[0].Call(ctx); !errors.Is(err, why) || strings.Contains(err.Error(), "\n") {
		t.Errorf("one call: %v, want one line with %q", err, why)
	}
	ctx, cancel = context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
	defer cancel()
	if _, err := Run(ctx, pool.Callers[1:], Plan{Duration: time.Hour}); !errors.Is(err, why) {
		t.Errorf("a run: %v, want %q", err, why)
	}
}

func TestStreamsShareWhatIsUnderWay(t *testing.T) {
	server := &streams{}
	pool, err := Pipeline(t.Context(), serveGRPC(t, server), encrypt, 2, 3, 11)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for end := time.Now().Add(5 * time.Second); server.sent.Load() < 11 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if opened, sent := server.opened.Load(), server.sent.Load(); opened != 3 || sent != 11 {
		t.Errorf("%d operations under way on %d streams, want 11 on 3", sent, opened)
	}
}

// TestRefusedOperationsOfAStream: what is refused for want of room is told as such, and
// the stream goes on with as many operations as before.
func TestRefusedOperationsOfAStream(t *testing.T) {
	server := &streams{answer: func(id uint64) *pb.OperationResult {
		if id%2 == 0 {
			return refused(codes.ResourceExhausted, "RESOURCE_EXHAUSTED")
		}
		return new(pb.OperationResult)
	}}
	pool, err := Pipeline(t.Context(), serveGRPC(t, server), encrypt, 1, 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	refusals := 0
	for range 12 {
		switch err := pool.Callers[0].Call(t.Context()); {
		case errors.Is(err, ErrOverload):
			refusals++
		case err != nil:
			t.Fatal(err)
		}
	}
	if refusals != 6 {
		t.Errorf("%d of 12 refused, want every other", refusals)
	}
}

func TestOverloadThatEndsAStreamEndsTheRun(t *testing.T) {
	target := serveGRPC(t, &streams{end: status.Error(codes.ResourceExhausted, "too many streams")})
	pool, err := Pipeline(t.Context(), target, encrypt, 1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	tolerant := Plan{Duration: time.Hour, Tolerate: func(err error) bool { return errors.Is(err, ErrOverload) }}
	if _, err := Run(t.Context(), pool.Callers, tolerant); err == nil || !strings.Contains(err.Error(), "ended the stream") || !strings.Contains(err.Error(), "too many streams") {
		t.Errorf("got %v", err)
	}
}

func TestRefusedItemsOfABatch(t *testing.T) {
	fine, full, denied := new(pb.OperationResult), refused(codes.ResourceExhausted, "RESOURCE_EXHAUSTED"), refused(codes.PermissionDenied, "PERMISSION_DENIED")
	for name, test := range map[string]struct {
		results  []*pb.OperationResult
		overload bool
		want     string
	}{
		"full":             {[]*pb.OperationResult{fine, full, full}, true, "operation 1 of the batch: no more"},
		"denied":           {[]*pb.OperationResult{fine, denied}, false, "operation 1 of the batch: PERMISSION_DENIED: no more"},
		"full, and denied": {[]*pb.OperationResult{full, denied}, false, "PERMISSION_DENIED"},
	} {
		err := refusal(&pb.BatchResponse{Results: test.results})
		if err == nil || errors.Is(err, ErrOverload) != test.overload || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := refusal(&pb.BatchResponse{Results: []*pb.OperationResult{fine}}); err != nil {
		t.Error(err)
	}
}

// TestRESTRefusals: the first call is answered, as the try-out must be.
func TestRESTRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		batch    int
		code     int
		body     string
		overload bool
		want     string
	}{
		"busy":             {0, http.StatusTooManyRequests, `{"message":"too many calls"}`, true, "too many calls"},
		"forged":           {0, http.StatusUnauthorized, `{"message":"who?"}`, false, "refused the token"},
		"wrong":            {0, http.StatusBadRequest, `{"message":"what?"}`, false, "400 Bad Request"},
		"item, busy":       {1, http.StatusOK, `{"results":[{"error":{"code":8,"status":"RESOURCE_EXHAUSTED","message":"full"}}]}`, true, "full"},
		"item, denied":     {1, http.StatusOK, `{"results":[{"error":{"code":7,"status":"PERMISSION_DENIED","message":"no"}}]}`, false, "PERMISSION_DENIED"},
		"not of the batch": {1, http.StatusOK, `"error"`, false, "not one of Keywright's"},
	} {
		t.Run(name, func(t *testing.T) {
			var later atomic.Bool
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if !later.Load() {
					fmt.Fprint(w, "{}")
					return
				}
				w.WriteHeader(test.code)
				fmt.Fprint(w, test.body)
			}))
			defer s.Close()
			w := encrypt
			w.Batch = test.batch
			pool, err := REST(t.Context(), Target{Addr: s.Listener.Addr().String(), Plaintext: true}, w, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			later.Store(true)
			err = pool.Callers[0].Call(t.Context())
			if err == nil || errors.Is(err, ErrOverload) != test.overload || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestErrorOfOneAmongMany: the connections that it closes under the others are no more
// errors.
func TestErrorOfOneAmongMany(t *testing.T) {
	var calls atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice that its client is gone
		switch n := calls.Add(1); {
		case n == 1:
			fmt.Fprint(w, "{}")
		case n < 10: // of nine callers, eight wait
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer s.Close()
	pool, err := REST(t.Context(), Target{Addr: s.Listener.Addr().String(), Plaintext: true}, encrypt, 9)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), pool.Callers, Plan{Duration: time.Hour})
	if err = errors.Join(err, pool.Close()); !errors.Is(err, ErrToken) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}
