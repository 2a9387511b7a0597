package publish_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/publish"
)

// witness follows the text of C2SP tlog-witness for one log, and nothing more.
type witness struct {
	log     checkpoint.Key
	private ed25519.PrivateKey
	name    string
	spoil   func(lines string) string // of its answers, if set

	mu    sync.Mutex
	size  uint64
	root  tlog.Hash
	calls int
}

func newWitness(log checkpoint.Key) *witness {
	return &witness{log: log, name: "witness.example/w1", private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte("w"), 32))}
}

func (w *witness) keyData() []byte {
	return append([]byte{0x04}, w.private.Public().(ed25519.PublicKey)...)
}

func (w *witness) keyID() []byte {
	sum := sha256.Sum256(append([]byte(w.name+"\n"), w.keyData()...))
	return sum[:4]
}

func (w *witness) vkey(t *testing.T) checkpoint.Key {
	t.Helper()
	key, err := checkpoint.ParseKey(fmt.Sprintf("%s+%x+%s", w.name, w.keyID(), base64.StdEncoding.EncodeToString(w.keyData())))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *witness) cosign(text string) string {
	const at = 1679315147
	raw := binary.BigEndian.AppendUint64(w.keyID(), at)
	raw = append(raw, ed25519.Sign(w.private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text))...)
	return "— " + w.name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

func (w *witness) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	status, body := w.answer(r)
	if w.spoil != nil {
		body = w.spoil(body)
	}
	if status == http.StatusConflict {
		out.Header().Set("Content-Type", "text/x.tlog.size")
	}
	out.WriteHeader(status)
	_, _ = io.WriteString(out, body)
}

func (w *witness) answer(r *http.Request) (status int, body string) {
	request, err := io.ReadAll(r.Body)
	head, signed, ok := strings.Cut(string(request), "\n\n")
	lines := strings.Split(head, "\n")
	old, err2 := strconv.ParseUint(strings.TrimPrefix(lines[0], "old "), 10, 63)
	if err != nil || err2 != nil || !ok || r.Method != http.MethodPost || r.URL.Path != "/prefix/add-checkpoint" || len(lines) > 64 {
		return http.StatusBadRequest, "malformed\n"
	}
	peeked, err := checkpoint.Peek([]byte(signed))
	if err == nil && peeked.Origin != w.log.Name() {
		return http.StatusNotFound, ""
	}
	c, err := checkpoint.Open([]byte(signed), w.log)
	switch {
	case err != nil:
		return http.StatusForbidden, ""
	case old > c.Size:
		return http.StatusBadRequest, ""
	case old != w.size:
		return http.StatusConflict, fmt.Sprintln(w.size)
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return http.StatusBadRequest, ""
		}
		proof = append(proof, hash)
	}
	switch {
	case old == 0 && len(proof) > 0, old == c.Size && old > 0 && w.root != c.Root,
		old > 0 && tlog.CheckTree(proof, int64(c.Size), c.Root, int64(old), w.root) != nil:
		return http.StatusUnprocessableEntity, ""
	}
	w.size, w.root = c.Size, c.Root
	return http.StatusOK, w.cosign(c.Text())
}

// connect serves w and returns a client that keeps what was cosigned last.
func connect(t *testing.T, w http.Handler, key checkpoint.Key, kept *[]byte) *publish.Witness {
	t.Helper()
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	client, err := publish.NewWitness(publish.WitnessOptions{
		URL: server.URL + "/prefix", Key: key, Cosigned: func(signed []byte, _ uint64) { *kept = signed },
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestWitness(t *testing.T) {
	l := newLog(t, "k")
	w := newWitness(l.key)
	var kept []byte
	client := connect(t, w, w.vkey(t), &kept)
	for round := range 5 {
		signed, size := l.grow(t, round*3, fmt.Sprint(round)) // at first the empty log, then the same size twice
		for range 2 {
			if err := client.Publish(t.Context(), signed, size, l); err != nil {
				t.Fatal(err)
			}
		}
		if w.size != size || !bytes.HasPrefix(kept, signed) || len(kept) == len(signed) {
			t.Errorf("the witness has %d lines of %d; kept %q", w.size, size, kept)
		}
		if c, err := checkpoint.Open(kept, l.key); err != nil || c.Size != size {
			t.Errorf("cosigned checkpoint: %+v (%v)", c, err)
		}
	}
	early, earlySize := l.sign(t, 1), uint64(1)
	if err := client.Publish(t.Context(), early, earlySize, l); err != nil {
		t.Errorf("overtaken: %v", err)
	}
	if w.calls != 10 {
		t.Errorf("%d calls for 10 checkpoints", w.calls)
	}
	// A client that knows nothing asks, and goes on from there.
	signed, size := l.grow(t, 9, "again")
	if err := connect(t, w, w.vkey(t), &kept).Publish(t.Context(), signed, size, l); err != nil || w.size != size {
		t.Errorf("from nothing: %v", err)
	}
}

func TestWitnessSeesForks(t *testing.T) {
	l, fork := newLog(t, "k"), newLog(t, "k")
	w := newWitness(l.key)
	var kept []byte
	signed, size := l.grow(t, 10, "r")
	if err := connect(t, w, w.vkey(t), &kept).Publish(t.Context(), signed, size, l); err != nil {
		t.Fatal(err)
	}
	shorter, shorterSize := fork.grow(t, 7, "other")
	if err := connect(t, w, w.vkey(t), &kept).Publish(t.Context(), shorter, shorterSize, fork); !errors.Is(err, publish.ErrForked) {
		t.Errorf("a shorter log: %v, want ErrForked", err)
	}
	longer, longerSize := fork.grow(t, 7, "other")
	if err := connect(t, w, w.vkey(t), &kept).Publish(t.Context(), longer, longerSize, fork); !errors.Is(err, publish.ErrForked) {
		t.Errorf("another history: %v, want ErrForked", err)
	}
	if w.size != 10 {
		t.Errorf("the witness has %d lines", w.size)
	}
}

func TestWitnessErrors(t *testing.T) {
	l, stranger := newLog(t, "k"), newLog(t, "x")
	signed, size := l.grow(t, 3, "r")
	var kept []byte
	for name, test := range map[string]struct {
		log   checkpoint.Key
		spoil func(string) string
		want  error
	}{
		"unknown key":         {stranger.key, nil, publish.ErrRefused},
		"no cosignature":      {l.key, func(string) string { return "" }, publish.ErrUnavailable},
		"wrong cosignature":   {l.key, func(lines string) string { return strings.Replace(lines, "A", "B", 1) }, publish.ErrUnavailable},
		"another's signature": {l.key, func(string) string { return "— other.example AAAAAAAA\n" }, publish.ErrUnavailable},
		"endless answer":      {l.key, func(string) string { return strings.Repeat("— a b\n", 1<<20) }, publish.ErrUnavailable},
	} {
		w := newWitness(test.log)
		w.spoil = test.spoil
		if err := connect(t, w, w.vkey(t), &kept).Publish(t.Context(), signed, size, l); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	for _, status := range []int{http.StatusInternalServerError, http.StatusConflict, http.StatusFound} {
		broken := http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(status) })
		if err := connect(t, broken, newWitness(l.key).vkey(t), &kept).Publish(t.Context(), signed, size, l); !errors.Is(err, publish.ErrUnavailable) {
			t.Errorf("status %d: %v, want ErrUnavailable", status, err)
		}
	}
	if kept != nil {
		t.Errorf("kept %q", kept)
	}
}

func TestNewWitnessRefuses(t *testing.T) {
	l := newLog(t, "k")
	good := newWitness(l.key).vkey(t)
	for name, o := range map[string]publish.WitnessOptions{
		"no URL": {Key: good}, "another scheme": {URL: "ftp://localhost/", Key: good}, "plain http": {URL: "http://witness.example/", Key: good},
		"no key": {URL: "https://witness.example/"}, "key of a log": {URL: "https://witness.example/", Key: l.key},
	} {
		if _, err := publish.NewWitness(o); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
