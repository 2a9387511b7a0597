package identity

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/policy"
)

// maxConnectionTokens bounds the tokens remembered for one connection. A proxy
// may carry several clients on a connection, an attacker any number of them.
const maxConnectionTokens = 64

// Connection is what is known about a transport connection. It is also the
// gRPC credentials.AuthInfo of that connection.
type Connection struct {
	// Source is the peer's address, the zero Addr if it has none.
	Source netip.Addr

	accepted    time.Time
	certificate *policy.Caller // set by the handshake, nil without a client certificate

	local bool           // a unix socket's
	uid   uint32         // of a local peer
	peer  *policy.Caller // what that is mapped to, nil if to nothing

	tokens atomic.Pointer[map[string]verified]
	latest atomic.Pointer[presented] // most connections present one token
}

// presented is a verified token with the authorization that it came in.
type presented struct {
	authorization string
	verified
}

// Age is how long ago the connection was accepted.
func (c *Connection) Age() time.Duration {
	if c.accepted.IsZero() {
		return 0
	}
	return time.Since(c.accepted)
}

// caller is who is at the other end, as the connection itself tells.
func (c *Connection) caller() (*policy.Caller, error) {
	switch {
	case c.local && c.peer != nil:
		return c.peer, nil
	case c.local:
		return nil, unauthenticated("UNKNOWN_PEER", fmt.Sprintf("uid %d is not among this socket's peers: name it in the configuration (listen), or send a token (authorization: Bearer kwt_...)", c.uid))
	case c.certificate == nil:
		return nil, unauthenticated("NO_CREDENTIALS",
			"no credentials: send a token (authorization: Bearer kwt_...) or connect with a client certificate")
	}
	return c.certificate, nil
}

// AuthType names the transport's security for gRPC.
func (*Connection) AuthType() string { return "keywright" }

// token returns what this connection's earlier requests had by a token.
func (c *Connection) token(text string) verified {
	if known := c.tokens.Load(); known != nil {
		return (*known)[text]
	}
	return verified{}
}

// remember keeps a verified token. Of two goroutines that remember at once one
// may be forgotten, which costs another look-up and nothing else.
func (c *Connection) remember(authorization, text string, v verified) {
	next := make(map[string]verified, 1)
	if known := c.tokens.Load(); known != nil && len(*known) < maxConnectionTokens {
		next = maps.Clone(*known)
	}
	next[text] = v
	c.tokens.Store(&next)
	c.latest.Store(&presented{authorization, v})
}

// Listener gives every connection it accepts a Connection.
type Listener struct{ net.Listener }

// Accept waits for the next connection.
func (l Listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: accepted, state: &Connection{Source: sourceOf(accepted), accepted: time.Now()}}, nil
}

// conn carries a Connection through the layers that wrap it.
type conn struct {
	net.Conn
	state *Connection
}

func sourceOf(c interface{ RemoteAddr() net.Addr }) netip.Addr {
	address, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return address.Addr().Unmap().WithZone("")
}

// Of returns the Connection of what a Listener accepted, also under TLS. What
// came from elsewhere gets an empty one.
func Of(c net.Conn) *Connection {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if own, ok := c.(*conn); ok {
		return own.state
	}
	return &Connection{}
}

type connectionKey struct{}

// NewContext returns ctx with c; it has the signature of http.Server.ConnContext.
func NewContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, Of(c))
}

// FromContext returns the Connection that NewContext stored, or an empty one.
func FromContext(ctx context.Context) *Connection {
	if c, ok := ctx.Value(connectionKey{}).(*Connection); ok {
		return c
	}
	return &Connection{}
}
