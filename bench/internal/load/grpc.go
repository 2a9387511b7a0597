package load

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// maxMessage bounds an answer; servers may be configured for more than the usual 4 MiB.
const maxMessage = 1 << 30

// GRPC returns callers that share connections evenly. It has sent the call once:
// a target that cannot serve it is an error here.
func GRPC(ctx context.Context, t Target, w Work, connections, callers int) (*Pool, error) {
	conns, err := Dial(t, connections)
	if err != nil {
		return nil, err
	}
	pool := &Pool{}
	for _, conn := range conns {
		pool.close = append(pool.close, conn.Close)
	}
	c, err := w.prepare(ctx, func(ctx context.Context, c call, answer proto.Message) error {
		return describe(conns[0].Invoke(ctx, path(c.method), c.request, answer), t.Addr)
	})
	if err != nil {
		return nil, joinClose(err, pool)
	}
	for i := range callers {
		pool.Callers = append(pool.Callers, &grpcCaller{
			conn: conns[i%len(conns)], addr: t.Addr, path: path(c.method), request: c.request, answer: c.answer(),
		})
	}
	return pool, nil
}

// joinClose closes a pool that is not to be used; the first error is what matters.
func joinClose(err error, p *Pool) error {
	_ = p.Close()
	return err
}

// Dial makes connections, each of which is opened by its first call.
func Dial(t Target, connections int) ([]*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if !t.Plaintext {
		c, err := t.tlsConfig()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(c)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	}
	if t.Token != "" {
		options = append(options, grpc.WithPerRPCCredentials(newBearer(t)))
	}
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		var err error
		if conns[i], err = grpc.NewClient("passthrough:///"+t.Addr, options...); err != nil {
			return nil, fmt.Errorf("the address %q: %w", t.Addr, err)
		}
	}
	return conns, nil
}

func path(method string) string { return "/" + pb.Crypto_ServiceDesc.ServiceName + "/" + method }

type grpcCaller struct {
	conn    *grpc.ClientConn
	addr    string
	path    string
	request proto.Message
	answer  proto.Message // overwritten by each call
}

// Call implements Caller.
func (c *grpcCaller) Call(ctx context.Context) error {
	if err := c.conn.Invoke(ctx, c.path, c.request, c.answer); err != nil {
		return describe(err, c.addr)
	}
	return refusal(c.answer)
}

// describe puts what gRPC returned into one line.
func describe(err error, addr string) error {
	switch s := status.Convert(err); s.Code() {
	case codes.OK:
		return nil
	case codes.Unavailable:
		return fmt.Errorf("%s does not serve: %s", addr, oneLine(s.Message()))
	case codes.ResourceExhausted:
		return fmt.Errorf("%w: %s", ErrOverload, oneLine(s.Message()))
	case codes.Unauthenticated:
		return fmt.Errorf("%s %w: %s: %s", addr, ErrToken, s.Code(), oneLine(s.Message()))
	default:
		return fmt.Errorf("%s refused: %s: %s", addr, s.Code(), oneLine(s.Message()))
	}
}

// bearer gives each call the same token, without making anything per call.
type bearer struct {
	header map[string]string
	secure bool
}

func newBearer(t Target) bearer {
	return bearer{map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(t.Token))}, !t.Plaintext}
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return b.header, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.secure }

// String hides the token.
func (bearer) String() string { return "[redacted]" }

// GoString hides the token.
func (bearer) GoString() string { return "[redacted]" }
