package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// dialTimeout bounds a connection with its TLS handshake.
const dialTimeout = 10 * time.Second

// REST returns callers that each have a connection of their own and one request
// at a time on it, HTTP/1.1, written in one piece and read without more goroutines:
// net/http's client would cost more than the server it measures. It has sent the
// call once: a target that cannot serve it is an error here.
func REST(ctx context.Context, t Target, w Work, callers int) (*Pool, error) {
	return overHTTP(ctx, t, callers, func(l *link) (request []byte, check func([]byte) error, err error) {
		c, err := w.prepare(ctx, func(ctx context.Context, c call, answer proto.Message) error {
			request, err := restRequest(t, c)
			if err == nil {
				err = l.send(ctx, request)
			}
			if err != nil {
				return err
			}
			return protojson.Unmarshal(l.body.Bytes(), answer)
		})
		if err != nil {
			return nil, nil, err
		}
		request, err = restRequest(t, c)
		if w.Batch > 0 {
			check = restItems
		}
		return request, check, err
	})
}

// overHTTP returns callers that send what prepare makes, which may use a connection to
// find out. check, if there is one, finds what failed in an answer of status 200.
func overHTTP(ctx context.Context, t Target, callers int, prepare func(*link) (request []byte, check func([]byte) error, err error)) (*Pool, error) {
	pool := &Pool{}
	first, err := connect(ctx, t)
	if err != nil {
		return nil, err
	}
	pool.close = append(pool.close, first.conn.Close)
	request, check, err := prepare(first)
	if err != nil {
		return nil, joinClose(err, pool)
	}
	for range callers {
		link, err := connect(ctx, t)
		if err != nil {
			return nil, joinClose(err, pool)
		}
		pool.close = append(pool.close, link.conn.Close)
		pool.Callers = append(pool.Callers, &httpCaller{link, request, check})
	}
	return pool, nil
}

// restItems is the error of a batch of which an operation failed.
func restItems(body []byte) error {
	switch {
	case !bytes.Contains(body, []byte(`"error"`)):
		return nil
	case bytes.Contains(body, []byte(`"RESOURCE_EXHAUSTED"`)):
		return fmt.Errorf("%w: it refused an operation of the batch", ErrOverload)
	}
	return errors.New("an operation of the batch was refused")
}

// restRequest is the whole request, as it is written to the connection.
func restRequest(t Target, c call) ([]byte, error) {
	message := proto.Clone(c.request)
	url := fmt.Sprintf("/v1/namespaces/%s/keys/%s:%s", takeString(message, "namespace"), takeString(message, "key"),
		strings.ToLower(c.method[:1])+c.method[1:])
	body, err := protojson.MarshalOptions{}.Marshal(message)
	if err != nil {
		return nil, err
	}
	return httpRequest(t, url, "Authorization: Bearer ", body), nil
}

// httpRequest is a POST of JSON, with the token, if there is one, after the beginning of
// its header.
func httpRequest(t Target, url, header string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", url, t.Addr, len(body))
	if t.Token != "" {
		b.WriteString(header + string(t.Token) + "\r\n")
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
	body   bytes.Buffer // overwritten by each call
}

func connect(ctx context.Context, t Target) (*link, error) {
	conn, err := dial(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("%s does not serve: %w", t.Addr, err)
	}
	return &link{addr: t.Addr, conn: conn, reader: bufio.NewReader(conn)}, nil
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
	return l.judge(answer)
}

func (l *link) judge(answer *http.Response) error {
	const shown = 300
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s", ErrOverload, answer.Status)
	}
	text, _ := io.ReadAll(io.LimitReader(&l.body, shown)) // a buffer is always readable
	return fmt.Errorf("%s refused: %s: %s", l.addr, answer.Status, oneLine(string(text)))
}

type httpCaller struct {
	*link
	request []byte
	check   func([]byte) error // nil if the status tells all
}

// Call implements Caller.
func (c *httpCaller) Call(ctx context.Context) error {
	if err := c.send(ctx, c.request); err != nil || c.check == nil {
		return err
	}
	return c.check(c.body.Bytes())
}
