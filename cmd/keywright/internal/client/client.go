package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

const (
	// maxMessage bounds an answer; servers may be configured for more than the usual 4 MiB.
	maxMessage = 64 << 20
	// attempts bounds how often one call is sent while the server is unavailable.
	attempts   = 3
	firstPause = 150 * time.Millisecond

	pingInterval = 30 * time.Second // the server allows 10
	pingTimeout  = 10 * time.Second
)

// requestIDHeader is the response metadata that carries the request id.
const requestIDHeader = "x-request-id"

// Client calls one server. Its methods are the services' own.
type Client struct {
	keywrightv1.KeysClient
	keywrightv1.CryptoClient
	keywrightv1.NamespacesClient
	keywrightv1.PoliciesClient
	keywrightv1.TokensClient
	keywrightv1.AuditClient
	keywrightv1.SystemClient
	keywrightv1.RootsClient

	// ServerID stands for the server as far as the caller can tell one from
	// another: by its address, and by the CA that vouches for it.
	ServerID string

	conn *grpc.ClientConn
}

// New makes a client; the connection is made by the first call.
func New(s Settings) (*Client, error) {
	transport, err := transportCredentials(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	c := caller{addr: s.Addr, timeout: s.Timeout}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(c.unary),
		grpc.WithStreamInterceptor(c.stream),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: firstPause, Multiplier: 2, MaxDelay: time.Second}}),
		// A server that vanished without a word is found out, also between calls.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithDisableRetry(),
	}
	if s.Token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{s.Token, !s.Plaintext && !s.local()}))
	}
	conn, err := grpc.NewClient(s.Addr, options...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	return &Client{
		KeysClient:       keywrightv1.NewKeysClient(conn),
		CryptoClient:     keywrightv1.NewCryptoClient(conn),
		NamespacesClient: keywrightv1.NewNamespacesClient(conn),
		PoliciesClient:   keywrightv1.NewPoliciesClient(conn),
		TokensClient:     keywrightv1.NewTokensClient(conn),
		AuditClient:      keywrightv1.NewAuditClient(conn),
		SystemClient:     keywrightv1.NewSystemClient(conn),
		RootsClient:      keywrightv1.NewRootsClient(conn),
		ServerID:         serverID(s),
		conn:             conn,
	}, nil
}

func serverID(s Settings) string {
	pem, _ := os.ReadFile(s.CAFile) // "" has none; another that cannot be read was refused before
	sum := sha256.Sum256(append([]byte(s.Addr+"\x00"), pem...))
	return hex.EncodeToString(sum[:12])
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func transportCredentials(s Settings) (credentials.TransportCredentials, error) {
	if s.Plaintext || s.local() {
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("the CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CA file %s holds no PEM certificate", s.CAFile)
		}
	}
	if s.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile); err != nil {
			return nil, fmt.Errorf("the client certificate: %w", err)
		}
		config.GetClientCertificate = s.certificate
	}
	return credentials.NewTLS(config), nil
}

// certificate reads the client certificate for a handshake: one that was renewed
// counts from the next connection on, for commands that run for long.
func (s Settings) certificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	certificate, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("the client certificate: %w", err)
	}
	return &certificate, nil
}

// bearer sends a token with each call.
type bearer struct {
	token  Token
	secure bool
}

// GetRequestMetadata returns the authorization header (RFC 6750).
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b.token)}, nil
}

// RequireTransportSecurity keeps the token from leaving the machine in the clear.
func (b bearer) RequireTransportSecurity() bool { return b.secure }

// caller is what every call shares.
type caller struct {
	addr    string
	timeout time.Duration // of each call, retries included; 0 is none
}

// unary bounds a call in time and sends it again while the server is
// unavailable: safe, since what changes something carries an idempotency key, and
// of tokens made twice one is known to nobody.
func (c caller) unary(ctx context.Context, method string, request, response any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	pause := firstPause
	for attempt := 1; ; attempt++ {
		var header metadata.MD
		err := invoke(ctx, method, request, response, conn, append(options, grpc.Header(&header))...)
		if status.Code(err) != codes.Unavailable || attempt == attempts || !sleep(ctx, pause) {
			return newError(err, c.addr, requestID(header))
		}
		pause *= 2
	}
}

// sleep waits and reports whether the context has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (c caller) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	if err != nil {
		return nil, newError(err, c.addr, "")
	}
	return callerStream{stream, c.addr}, nil
}

// callerStream turns the errors of a stream as unary does those of a call.
type callerStream struct {
	grpc.ClientStream
	addr string
}

// RecvMsg receives a message; io.EOF stays what it is.
func (s callerStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if _, isStatus := status.FromError(err); err == nil || !isStatus {
		return err
	}
	header, _ := s.Header() // without a header there is no request id to show
	return newError(err, s.addr, requestID(header))
}

func requestID(header metadata.MD) string {
	if ids := header.Get(requestIDHeader); len(ids) > 0 {
		return ids[0]
	}
	return ""
}
