package gate

import (
	"context"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/server/internal/identity"
)

const (
	requestIDKey     = "x-request-id"
	authorizationKey = "authorization"
	maxRequestID     = 64
)

// Arrival is what a transport knows of a request before anything is decided.
type Arrival struct {
	Connection    *identity.Connection
	Authorization string // as the client sent it, "" if it did not
	RequestID     string
	Named         bool           // the client sent a request id, even if another was taken
	Caller        *policy.Caller // whose stream it came on; it is authenticated again all the same
}

// arrivalOf reads a gRPC request's context.
func arrivalOf(ctx context.Context) Arrival {
	given := metadata.ValueFromIncomingContext(ctx, requestIDKey)
	return Arrival{
		Connection:    connectionOf(ctx),
		Authorization: strings.Join(metadata.ValueFromIncomingContext(ctx, authorizationKey), ", "),
		RequestID:     RequestID(given),
		Named:         len(given) > 0,
	}
}

func connectionOf(ctx context.Context) *identity.Connection {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(*identity.Connection); ok {
			return c
		}
	}
	return &identity.Connection{}
}

// RequestID takes the caller's id if it is one short word, else makes one of
// 128 random bits. It is a name, not a secret.
func RequestID(given []string) string {
	if len(given) == 1 && isRequestID(given[0]) {
		return given[0]
	}
	var id [16]byte
	high, low := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		id[i], id[8+i] = byte(high>>(8*i)), byte(low>>(8*i))
	}
	return hex.EncodeToString(id[:])
}

func isRequestID(s string) bool {
	if s == "" || len(s) > maxRequestID {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' && c != ':' {
			return false
		}
	}
	return true
}

// bounded is a context with a deadline whose timer starts only when somebody
// waits for it: most calls are done long before, and never do.
type bounded struct {
	context.Context
	deadline time.Time
	arming   sync.Once
	armed    atomic.Pointer[armed]
}

type armed struct {
	context.Context
	cancel context.CancelFunc
}

// newBounded gives ctx a deadline after timeout. Call release when done.
func newBounded(ctx context.Context, timeout time.Duration) *bounded {
	return &bounded{Context: ctx, deadline: time.Now().Add(timeout)}
}

func (b *bounded) Deadline() (time.Time, bool) { return b.deadline, true }

func (b *bounded) Done() <-chan struct{} {
	b.arming.Do(func() {
		ctx, cancel := context.WithDeadline(b.Context, b.deadline)
		b.armed.Store(&armed{ctx, cancel})
	})
	return b.armed.Load().Done()
}

func (b *bounded) Err() error {
	if a := b.armed.Load(); a != nil {
		return a.Err()
	}
	if err := b.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(b.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// Value also lets package context find the armed context, which its children
// then hang on directly.
func (b *bounded) Value(key any) any {
	if a := b.armed.Load(); a != nil {
		return a.Value(key)
	}
	return b.Context.Value(key)
}

// release frees what a bounded context holds; others are left alone.
func release(ctx context.Context) {
	if b, ok := ctx.(*bounded); ok {
		if a := b.armed.Load(); a != nil {
			a.cancel()
		}
	}
}
