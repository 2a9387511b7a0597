package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// dialTimeout bounds a connection with its TLS handshake.
const dialTimeout = 10 * time.Second

// REST returns callers that each have a connection of their own and one request
// at a time on it, HTTP/1.1, written in one piece and read without more goroutines:
// net/http's client would cost more than the server it measures. It has sent the
// call once: a target that cannot serve it is an error here.
func REST(ctx context.Context, t Target, w Work, callers int) (*Pool, error) {
	pool := &Pool{}
	link, err := connect(ctx, t)
	if err != nil {
		return nil, err
	}
	pool.close = append(pool.close, link.conn.Close)
	c, err := w.prepare(ctx, func(ctx context.Context, c call, answer proto.Message) error {
		body, err := link.exchange(ctx, t, c)
		if err != nil {
			return err
		}
		return protojson.Unmarshal(body, answer)
	})
	if err != nil {
		return nil, joinClose(err, pool)
	}
	request, err := httpRequest(t, c)
	if err != nil {
		return nil, joinClose(err, pool)
	}
	for range callers {
		link, err := connect(ctx, t)
		if err != nil {
			return nil, joinClose(err, pool)
		}
		pool.close = append(pool.close, link.conn.Close)
		pool.Callers = append(pool.Callers, &restCaller{link, request, w.Batch > 0})
	}
	return pool, nil
}

// httpRequest is the whole request, as it is written to the connection.
func httpRequest(t Target, c call) ([]byte, error) {
	message := proto.Clone(c.request)
	url := fmt.Sprintf("/v1/namespaces/%s/keys/%s:%s", takeString(message, "namespace"), takeString(message, "key"),
		strings.ToLower(c.method[:1])+c.method[1:])
	body, err := protojson.MarshalOptions{}.Marshal(message)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", url, t.Addr, len(body))
	if t.Token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", string(t.Token))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes(), nil
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

func (l *link) exchange(ctx context.Context, t Target, c call) ([]byte, error) {
	request, err := httpRequest(t, c)
	if err != nil {
		return nil, err
	}
	if err := l.send(ctx, request); err != nil {
		return nil, err
	}
	return l.body.Bytes(), nil
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
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	text := oneLine(string(l.body.Next(shown)))
	if answer.StatusCode == http.StatusTooManyRequests {
		return fmt.Errorf("%w: %s: %s", ErrOverload, answer.Status, text)
	}
	return fmt.Errorf("%s refused: %s: %s", l.addr, answer.Status, text)
}

type restCaller struct {
	*link
	request []byte
	batch   bool
}

// Call implements Caller.
func (c *restCaller) Call(ctx context.Context) error {
	if err := c.send(ctx, c.request); err != nil {
		return err
	}
	if !c.batch || !bytes.Contains(c.body.Bytes(), []byte(`"error"`)) {
		return nil
	}
	var answer pb.BatchResponse // read only now: decoding all of them would slow the calls down
	if err := protojson.Unmarshal(c.body.Bytes(), &answer); err != nil {
		return fmt.Errorf("%s answers a batch with something else: %w", c.addr, err)
	}
	return refusal(&answer)
}
