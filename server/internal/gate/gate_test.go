package gate

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/identity"
)

// newTestGate is a gate without a core, for methods that need none.
func newTestGate(log *bytes.Buffer) *Gate {
	g := &Gate{metrics: NewMetrics(), limit: 10, timeout: time.Minute,
		logger:  slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		callers: identity.NewAuthenticator(anyToken{}, time.Now, 0)}
	g.draining, g.drain = context.WithCancel(context.Background())
	return g
}

// anyToken takes every token.
type anyToken struct{}

func (anyToken) VerifyToken(string) (*policy.Caller, error) {
	return &policy.Caller{Type: policy.Token, ID: "t"}, nil
}
func (anyToken) TokenGeneration() uint64 { return 1 }

func someArrival() Arrival {
	return Arrival{Connection: &identity.Connection{}, Authorization: "Bearer kwt_x", RequestID: "r1"}
}

// TestPanicsTellNothing: neither caller nor log see the value of a panic, which
// may hold what the request held.
func TestPanicsTellNothing(t *testing.T) {
	var log bytes.Buffer
	g := newTestGate(&log)
	for name, value := range map[string]any{"text": "secret-4111", "error": errors.New("secret-4111"), "bytes": []byte("secret-4111")} {
		m := Row(g, "Explode", func(context.Context, kms.Call, *pb.WhoAmIRequest) (*pb.WhoAmIResponse, error) { panic(value) })
		p, err := m.Serve(t.Context(), someArrival(), &pb.WhoAmIRequest{}, nil)
		if p != nil || kms.CodeOf(err) != kms.Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	out := log.String()
	if strings.Contains(out, "secret") || !strings.Contains(out, "*errors.errorString") || !strings.Contains(out, "gate_test.go") {
		t.Errorf("log: %s", out)
	}
	if n := g.calls.Load(); n != 0 {
		t.Errorf("%d calls in flight after panics", n)
	}
	index := 3
	m := Row(g, "Index", func(context.Context, kms.Call, *pb.WhoAmIRequest) (*pb.WhoAmIResponse, error) {
		_ = []int{}[index]
		return nil, nil
	})
	log.Reset()
	if _, err := m.Serve(t.Context(), someArrival(), &pb.WhoAmIRequest{}, nil); kms.CodeOf(err) != kms.Internal || !strings.Contains(log.String(), "index out of range") {
		t.Errorf("the runtime's own panic: %v, log %s", err, log.String())
	}
}

// TestEveryCodeHasAStatus keeps the table whole.
func TestEveryCodeHasAStatus(t *testing.T) {
	for _, code := range []kms.Code{kms.OK, kms.InvalidArgument, kms.NotFound, kms.AlreadyExists, kms.FailedPrecondition, kms.PermissionDenied,
		kms.Unauthenticated, kms.ResourceExhausted, kms.Aborted, kms.Unavailable, kms.DeadlineExceeded, kms.Canceled, kms.DataLoss, kms.Internal} {
		row, ok := statusOf[code]
		want := string(code)
		got := strings.ToUpper(row.grpc.String())
		if !ok || strings.ReplaceAll(want, "_", "") != got && code != kms.Canceled {
			t.Errorf("%s is mapped to %s", code, row.grpc)
		}
	}
	for err, code := range map[error]kms.Code{context.Canceled: kms.Canceled, context.DeadlineExceeded: kms.DeadlineExceeded, errors.New("secret"): kms.Internal} {
		if e := AsError(err); e.Code != code || strings.Contains(e.Message, "secret") {
			t.Errorf("%v becomes %v", err, e)
		}
	}
}

func TestBoundedContext(t *testing.T) {
	type key struct{}
	parent, cancelParent := context.WithCancel(context.WithValue(context.Background(), key{}, "value"))
	defer cancelParent()

	t.Run("times out when waited for", func(t *testing.T) {
		ctx := newBounded(parent, 20*time.Millisecond)
		defer release(ctx)
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		<-child.Done()
		if ctx.Err() != context.DeadlineExceeded || child.Err() != context.DeadlineExceeded || child.Value(key{}) != "value" {
			t.Errorf("ended with %v, child with %v", ctx.Err(), child.Err())
		}
	})
	t.Run("times out when only asked", func(t *testing.T) {
		ctx := newBounded(parent, time.Nanosecond)
		time.Sleep(time.Millisecond)
		if ctx.Err() != context.DeadlineExceeded || ctx.armed.Load() != nil {
			t.Errorf("ended with %v", ctx.Err())
		}
	})
	t.Run("ends with its parent", func(t *testing.T) {
		parent, cancel := context.WithCancel(parent)
		asked, waited := newBounded(parent, time.Hour), newBounded(parent, time.Hour)
		defer release(waited)
		done := waited.Done()
		if asked.Err() != nil || waited.Err() != nil {
			t.Errorf("ended early")
		}
		cancel()
		<-done
		if asked.Err() != context.Canceled || waited.Err() != context.Canceled {
			t.Errorf("ended with %v and %v", asked.Err(), waited.Err())
		}
	})
	if n := testing.AllocsPerRun(100, func() {
		ctx := newBounded(parent, time.Hour)
		_, _ = ctx.Err(), ctx.Value(key{})
		release(ctx)
	}); n > 1 {
		t.Errorf("a call that nobody waits for allocates %v times", n)
	}
}

func TestIdentityAllocatesNothing(t *testing.T) {
	g, a := newTestGate(&bytes.Buffer{}), someArrival()
	if n := testing.AllocsPerRun(100, func() {
		if caller, err := g.Authenticate(a); err != nil || caller == nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("authenticating allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { g.metrics.Operation(policy.Encrypt, "XAES_256_GCM", kms.OK, time.Microsecond) }); n > 0 {
		t.Errorf("counting allocates %v times", n)
	}
}

func FuzzRequestID(f *testing.F) {
	for _, seed := range []string{"", "abc", "a b", strings.Repeat("x", 65), "\x00", "é"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		id := RequestID([]string{given})
		if !isRequestID(id) || isRequestID(given) && id != given {
			t.Errorf("requestID(%q) = %q", given, id)
		}
		for _, r := range id {
			if r <= ' ' || r > '~' || r == '"' || r == '\\' {
				t.Errorf("id %q has %q", id, r)
			}
		}
	})
}
