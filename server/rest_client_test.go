package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"
)

type restClient struct {
	t           testing.TB
	base, token string
	http        *http.Client
}

type answer struct {
	status int
	header http.Header
	text   string
	fields map[string]any
}

// do sends a request and returns the answer, whose body must be one JSON object.
func (c *restClient) do(method, path, body string, headers ...string) answer {
	c.t.Helper()
	request := must[*http.Request](c.t)(http.NewRequest(method, c.base+path, bytes.NewReader([]byte(body))))
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.http.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	text := must[[]byte](c.t)(io.ReadAll(response.Body))
	a := answer{status: response.StatusCode, header: response.Header, text: string(text)}
	if err := json.Unmarshal(text, &a.fields); err != nil {
		c.t.Fatalf("%s %s: %d %q is not a JSON object: %v", method, path, a.status, text, err)
	}
	return a
}

// ok is do, for what must succeed.
func (c *restClient) ok(method, path, body string) map[string]any {
	c.t.Helper()
	a := c.do(method, path, body)
	if a.status != http.StatusOK {
		c.t.Fatalf("%s %s %s: %d %s", method, path, body, a.status, a.text)
	}
	return a.fields
}

func (a answer) string(name string) string {
	s, _ := a.fields[name].(string)
	return s
}
