package server_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server"
)

func encryptOne(id uint64) *pb.PipelineRequest {
	return &pb.PipelineRequest{Id: id, Operation: &pb.Operation{Request: &pb.Operation_Encrypt{Encrypt: &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")}}}}
}

// TestRevocationEndsStreams: operations on an open stream are refused at once,
// the stream itself ends a moment later; other tokens' go on.
func TestRevocationEndsStreams(t *testing.T) {
	h := newHarness(t, nil)
	admin := h.prepare()
	tokens := pb.NewTokensClient(admin)
	_, err := h.service.PutPolicy(t.Context(), h.adminCall(), kms.PutPolicyRequest{Name: "auditor", Text: `permit (principal == Token::"app", action in Action::"auditor", resource);`})
	if err != nil {
		t.Fatal(err)
	}
	made := must[*pb.CreateTokenResponse](t)(tokens.CreateToken(t.Context(), &pb.CreateTokenRequest{Principal: "app"}))
	c := h.dial(identityOf{token: made.Token})
	pipeline := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(pb.NewCryptoClient(c).Pipeline(t.Context()))
	tail := must[grpc.ServerStreamingClient[pb.AuditEntry]](t)(pb.NewAuditClient(c).TailEntries(t.Context(), &pb.TailEntriesRequest{}))
	survivor := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(pb.NewCryptoClient(h.dial(identityOf{token: h.createToken("app")})).Pipeline(t.Context()))
	ask := func(s grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse], id uint64) (*pb.OperationError, error) {
		if err := s.Send(encryptOne(id)); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		r, err := s.Recv()
		return r.GetResult().GetError(), err
	}
	if failed, err := ask(pipeline, 1); failed != nil || err != nil {
		t.Fatalf("%v, %v", failed, err)
	}
	must[*pb.AuditEntry](t)(tail.Recv())
	must[*pb.RevokeTokensResponse](t)(tokens.RevokeTokens(t.Context(), &pb.RevokeTokensRequest{Id: made.Id}))
	if failed, err := ask(pipeline, 2); err == nil && failed.GetReason() != "TOKEN_REVOKED" {
		t.Errorf("an operation after the revocation: %v", failed)
	}
	began := time.Now()
	for err = error(nil); err == nil; {
		_, err = pipeline.Recv()
	}
	wantReason(t, err, "TOKEN_REVOKED")
	for err = error(nil); err == nil; {
		_, err = tail.Recv()
	}
	wantReason(t, err, "TOKEN_REVOKED")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the streams ended after %s", took)
	}
	if failed, err := ask(survivor, 3); failed != nil || err != nil {
		t.Errorf("another token's stream: %v, %v", failed, err)
	}
	_, err = whoAmI(t.Context(), c)
	wantReason(t, err, "TOKEN_REVOKED")
}

func wantReason(t testing.TB, err error, reason string) {
	t.Helper()
	info, _ := details(wantStatus(t, err, codes.Unauthenticated))
	if info.GetReason() != reason {
		t.Errorf("reason of %v, want %s", err, reason)
	}
}

// TestRenewalKeepsStreams: a stream outlives the time that its lease had when it
// began, and ends with the lease.
func TestRenewalKeepsStreams(t *testing.T) {
	offset := &clock{}
	h := newHarnessAt(t, offset, nil)
	tokens := pb.NewTokensClient(h.prepare())
	made := must[*pb.CreateTokenResponse](t)(tokens.CreateToken(t.Context(), &pb.CreateTokenRequest{Principal: "app",
		Ttl: durationpb.New(time.Minute), RenewableFor: durationpb.New(time.Hour)}))
	c := h.dial(identityOf{token: made.Token})
	s := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(pb.NewCryptoClient(c).Pipeline(t.Context()))
	use := func(id uint64) error {
		if err := s.Send(encryptOne(id)); err != nil {
			return err
		}
		r, err := s.Recv()
		if failed := r.GetResult().GetError(); failed != nil {
			return fmt.Errorf("operation: %v", failed)
		}
		return err
	}
	offset.advance(50 * time.Second)
	renewed := must[*pb.RenewTokenResponse](t)(pb.NewTokensClient(c).RenewToken(t.Context(), &pb.RenewTokenRequest{}))
	if who := must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), c)); !who.ExpireTime.AsTime().Equal(renewed.ExpireTime.AsTime()) || who.RenewableUntil == nil {
		t.Errorf("who %v, renewed %v", who, renewed)
	}
	offset.advance(30 * time.Second)
	time.Sleep(time.Second) // let the stream be looked at
	if err := use(1); err != nil {
		t.Fatalf("after the renewal: %v", err)
	}
	offset.advance(time.Minute)
	var err error
	for err == nil {
		_, err = s.Recv()
	}
	wantReason(t, err, "TOKEN_EXPIRED")
}

func (h *harness) dialUnix(path string, options ...grpc.DialOption) *grpc.ClientConn {
	h.t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	c := must[*grpc.ClientConn](h.t)(grpc.NewClient("unix:"+path, options...))
	h.t.Cleanup(func() { c.Close() })
	return c
}

// TestUnixSocket: local users by their uid, and tokens, beside TLS on the network.
func TestUnixSocket(t *testing.T) {
	dir := t.TempDir()
	mine, foreign := filepath.Join(dir, "mine"), filepath.Join(dir, "foreign")
	h := newHarness(t, func(c *server.Config) {
		c.Sockets = []server.Socket{
			{Path: mine, Mode: 0o660, Peers: []server.Peer{{UID: uint32(os.Getuid()), Principal: `Workload::"local:spiffe://example.org/billing"`, Groups: []string{"ops"}}}},
			{Path: foreign, Peers: []server.Peer{{UID: 1 << 30, Principal: `User::"local:alice"`}}},
		}
	})
	h.prepare()
	c := h.dialUnix(mine)
	who := must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), c))
	if who.Principal != `Workload::"local:spiffe://example.org/billing"` || who.Method != "unix" || strings.Join(who.Groups, ",") != "ops" {
		t.Errorf("who %v", who)
	}
	must[*pb.EncryptResponse](t)(pb.NewCryptoClient(c).Encrypt(t.Context(), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")}))
	token := grpc.PerRPCCredentials(plainBearer(h.createToken("app")))
	for _, path := range []string{mine, foreign} {
		who := must[*pb.WhoAmIResponse](t)(pb.NewTokensClient(h.dialUnix(path)).WhoAmI(t.Context(), &pb.WhoAmIRequest{}, token))
		if who.Principal != `Token::"app"` {
			t.Errorf("a token over %s: %v", path, who)
		}
	}
	_, err := whoAmI(t.Context(), h.dialUnix(foreign))
	wantReason(t, err, "UNKNOWN_PEER")
	if !strings.Contains(err.Error(), fmt.Sprint("uid ", os.Getuid())) {
		t.Errorf("%v does not say which user", err)
	}
	if _, metrics := httpGet(t, "http://"+h.server.MetricsAddr().String()+"/metrics"); !strings.Contains(metrics, `keywright_auth_failures_total{reason="UNKNOWN_PEER"} 1`) {
		t.Error("it was not counted")
	}
	if err := h.drain(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(mine); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestFailuresAreLimited: guessing stops, and takes nothing from who is known.
func TestFailuresAreLimited(t *testing.T) {
	h := newHarness(t, func(c *server.Config) { c.FailedAuthentications = 5 })
	good := h.createToken("app")
	known := h.dial(identityOf{token: good})
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), known))
	fresh := h.createToken("app")
	ended := must[*pb.CreateTokenResponse](t)(pb.NewTokensClient(h.dial(h.admin())).CreateToken(t.Context(), &pb.CreateTokenRequest{Principal: "app"}))
	must[*pb.RevokeTokensResponse](t)(pb.NewTokensClient(h.dial(h.admin())).RevokeTokens(t.Context(), &pb.RevokeTokensRequest{Id: ended.Id}))
	for range 10 { // genuine, but revoked: nobody else is held up
		_, err := whoAmI(t.Context(), h.dial(identityOf{token: ended.Token}))
		wantReason(t, err, "TOKEN_REVOKED")
	}
	guesser := h.dial(identityOf{token: tamper(good)})
	for range 5 {
		_, err := whoAmI(t.Context(), guesser)
		wantReason(t, err, "INVALID_TOKEN")
	}
	for _, who := range []*grpc.ClientConn{guesser, h.dial(identityOf{token: fresh})} {
		_, err := whoAmI(t.Context(), who)
		s := wantStatus(t, err, codes.ResourceExhausted)
		if info, _ := details(s); info.GetReason() != "TOO_MANY_FAILURES" || !strings.Contains(s.Message(), "try again in") {
			t.Errorf("%v", err)
		}
	}
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), known))
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), h.dial(identityOf{token: good})))
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), h.dial(h.admin())))
	if code, text := h.askREST(identityOf{token: tamper(good)}, "/v1/whoami"); code != http.StatusTooManyRequests {
		t.Errorf("REST: %d %s", code, text)
	}
	if _, metrics := httpGet(t, "http://"+h.server.MetricsAddr().String()+"/metrics"); !strings.Contains(metrics, `keywright_auth_failures_total{reason="TOO_MANY_FAILURES"} 3`) {
		t.Error("metrics do not tell")
	}
}

// TestConnectionsAge: calls go on over new connections; streams keep the old one for
// a while and are told then.
func TestConnectionsAge(t *testing.T) {
	h := newHarness(t, func(c *server.Config) { c.ConnectionAge = 300 * time.Millisecond })
	who := h.admin()
	c, r := h.dial(who), h.client(who)
	h.prepare()
	app := identityOf{token: h.createToken("app")}
	// Answered after the connection's age, ended before twice of it.
	opened := time.Now()
	stream := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(
		pb.NewCryptoClient(h.dial(app)).Pipeline(t.Context()))
	for n := uint64(1); ; n++ {
		if err := stream.Send(encryptOne(n)); err != nil {
			break // Recv says why
		}
		if _, err := stream.Recv(); err != nil {
			wantStatus(t, err, codes.Unavailable)
			if age := time.Since(opened); !strings.Contains(err.Error(), "connection_age") || age < 330*time.Millisecond {
				t.Errorf("the stream ended at an age of %v: %v", age, err)
			}
			break
		}
		if time.Since(opened) > 30*time.Second {
			t.Fatal("a stream keeps its connection for ever")
		}
		time.Sleep(5 * time.Millisecond)
	}
	reused, fresh := 0, 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if i.Reused {
			reused++
		} else {
			fresh++
		}
	}})
	for began := time.Now(); (fresh < 3 || reused < 3) && time.Since(began) < 30*time.Second; time.Sleep(10 * time.Millisecond) {
		must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), c))
		request := must[*http.Request](t)(http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/v1/whoami", nil))
		response, err := r.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	if fresh < 3 || reused < 3 {
		t.Errorf("REST: %d new connections, %d used again", fresh, reused)
	}
}

func (h *harness) adminCall() kms.Call { return kms.Call{Caller: adminCaller(), RequestID: "admin"} }

func adminCaller() *policy.Caller {
	return &policy.Caller{Type: policy.User, ID: "local:CN=admin", Method: "mtls"}
}

// clock is the real one, set forward.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }
