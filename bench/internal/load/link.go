package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// dialTimeout bounds a connection with its TLS handshake.
const dialTimeout = 10 * time.Second

// judge tells what an answer that is not 200 means, in one line.
type judge func(addr string, answer *http.Response, body []byte) error

// httpCall is a call made ready to be sent over HTTP.
type httpCall struct {
	request []byte
	check   func(body []byte) error // what an answer of 200 may still refuse; safe for many at once
}

// httpPool is callers that each have a connection of their own and one request at a
// time on it, HTTP/1.1, written in one piece and read without more goroutines:
// net/http's client would cost more than the server it measures. prepare sends the call
// once.
func httpPool(ctx context.Context, t Target, callers int, judge judge, prepare func(*link) (httpCall, error)) (*Pool, error) {
	pool, links := &Pool{}, make([]*link, callers)
	var call httpCall
	for i := range links {
		var err error
		if links[i], err = connect(ctx, t, judge); err != nil {
			return nil, joinClose(err, pool)
		}
		pool.close = append(pool.close, links[i].close)
		if i > 0 {
			continue
		}
		if call, err = prepare(links[0]); err != nil { // before more connections are opened in vain
			return nil, joinClose(err, pool)
		}
	}
	for _, l := range links {
		pool.Callers = append(pool.Callers, &httpCaller{l, call})
	}
	return pool, nil
}

// httpCaller sends the same request on its link.
type httpCaller struct {
	*link
	httpCall
}

// Call implements Caller.
func (c *httpCaller) Call(ctx context.Context) error {
	if err := c.send(ctx, c.request); err != nil {
		return err
	}
	return c.check(c.body.Bytes())
}

// httpRequest is a whole request, as it is written to the connection. The credential is
// the header that carries the token, up to it; it is left out where there is no token.
func httpRequest(t Target, method, path, credential string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n",
		method, (&url.URL{Path: path}).EscapedPath(), t.Addr, len(body))
	if t.Token != "" {
		fmt.Fprintf(&b, "%s%s\r\n", credential, string(t.Token))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// link is one connection with its buffers.
type link struct {
	addr   string
	conn   net.Conn
	reader *bufio.Reader
	judge  judge
	body   bytes.Buffer // overwritten by each call
}

func connect(ctx context.Context, t Target, judge judge) (*link, error) {
	conn, err := dial(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("%s does not serve: %w", t.Addr, err)
	}
	return &link{addr: t.Addr, conn: conn, reader: bufio.NewReader(conn), judge: judge}, nil
}

// close may come after send has closed the connection.
func (l *link) close() error {
	if err := l.conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func dial(ctx context.Context, t Target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if t.Plaintext {
		return new(net.Dialer).DialContext(ctx, "tcp", t.Addr)
	}
	c, err := t.tlsConfig()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", t.Addr)
}

// send writes a request and reads its answer into the body. A context that ends
// closes the connection.
func (l *link) send(ctx context.Context, request []byte) error {
	defer context.AfterFunc(ctx, func() { _ = l.conn.Close() })()
	if _, err := l.conn.Write(request); err != nil {
		return fmt.Errorf("%s does not serve: %w", l.addr, err)
	}
	answer, err := http.ReadResponse(l.reader, nil)
	if err != nil {
		return fmt.Errorf("%s does not answer HTTP: %w", l.addr, err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	l.body.Reset()
	if _, err := l.body.ReadFrom(answer.Body); err != nil {
		return fmt.Errorf("%s does not answer HTTP: %w", l.addr, err)
	}
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return l.judge(l.addr, answer, l.body.Bytes())
}

// shown is the start of an answer, in one line.
func shown(body []byte) string {
	const most = 300
	return oneLine(string(body[:min(len(body), most)]))
}
