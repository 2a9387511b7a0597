package load

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// REST returns callers that each have a connection of their own. It has sent the call
// once: a target that cannot serve it is an error here.
func REST(ctx context.Context, t Target, w Work, callers int) (*Pool, error) {
	return httpPool(ctx, t, callers, judgeREST, func(l *link) (httpCall, error) {
		c, err := w.prepare(ctx, func(ctx context.Context, c call, answer proto.Message) error {
			return exchangeREST(ctx, l, t, c, answer)
		})
		if err != nil {
			return httpCall{}, err
		}
		request, err := restRequest(t, c)
		return httpCall{request, checkREST}, err
	})
}

func exchangeREST(ctx context.Context, l *link, t Target, c call, answer proto.Message) error {
	request, err := restRequest(t, c)
	if err != nil {
		return err
	}
	if err := l.send(ctx, request); err != nil {
		return err
	}
	return decode(l.body.Bytes(), answer)
}

func restRequest(t Target, c call) ([]byte, error) {
	message := proto.Clone(c.request)
	path := fmt.Sprintf("/v1/namespaces/%s/keys/%s:%s", takeString(message, "namespace"), takeString(message, "key"),
		strings.ToLower(c.method[:1])+c.method[1:])
	body, err := protojson.MarshalOptions{}.Marshal(message)
	if err != nil {
		return nil, err
	}
	return httpRequest(t, http.MethodPost, path, "Authorization: Bearer ", body), nil
}

func judgeREST(addr string, answer *http.Response, body []byte) error {
	switch answer.StatusCode {
	case http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s: %s", ErrOverload, answer.Status, shown(body))
	case http.StatusUnauthorized:
		return fmt.Errorf("%s %w: %s: %s", addr, ErrToken, answer.Status, shown(body))
	}
	return fmt.Errorf("%s refused: %s: %s", addr, answer.Status, shown(body))
}

// checkREST looks for operations of a batch that were refused. Only such answers are
// decoded: to decode all of them would slow the calls down.
func checkREST(body []byte) error {
	if !bytes.Contains(body, []byte(`"error"`)) {
		return nil
	}
	var answer pb.BatchResponse
	if err := decode(body, &answer); err != nil {
		return err
	}
	return refusal(&answer)
}

func decode(body []byte, answer proto.Message) error {
	if err := protojson.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("the answer is not one of Keywright's: %s: %w", shown(body), err)
	}
	return nil
}
