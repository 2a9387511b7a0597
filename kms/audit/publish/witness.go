package publish

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/keywright/keywright/kms/audit/checkpoint"
)

// Witness is a client of a witness. Make it with NewWitness.
type Witness struct {
	key      checkpoint.Key
	url      string
	client   *http.Client
	cosigned func(signed []byte, size uint64)

	mu        sync.Mutex // a checkpoint at a time
	published uint64     // size of the last that was cosigned for us
	known     uint64     // size of the last that the witness has, as far as we know
}

// WitnessOptions configures a Witness.
type WitnessOptions struct {
	// URL is the witness's submission prefix: https, or http to this machine.
	URL string
	// Key is the witness's verifier key, of signature type 0x04.
	Key checkpoint.Key
	// Client sends the requests; default one with DefaultTimeout. It must not
	// follow redirections.
	Client *http.Client
	// Cosigned is given each checkpoint with the witness's cosignature; default
	// nobody.
	Cosigned func(signed []byte, size uint64)
}

// NewWitness checks the options.
func NewWitness(o WitnessOptions) (*Witness, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("witness: %q must be an https URL, or http to this machine", o.URL)
	}
	if o.Key.Algorithm() != checkpoint.Cosignature {
		return nil, fmt.Errorf("witness %s: its key must have signature type 0x04, not %#02x", u.Redacted(), byte(o.Key.Algorithm()))
	}
	w := &Witness{key: o.Key, url: strings.TrimSuffix(o.URL, "/") + "/add-checkpoint", client: o.Client, cosigned: o.Cosigned}
	if w.client == nil {
		w.client = &http.Client{
			Timeout:       DefaultTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return w, nil
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// Name implements Publisher.
func (w *Witness) Name() string { return "witness " + w.key.Name() }

// Publish implements Publisher. One that is overtaken by a later one is not sent.
// Errors are ErrUnavailable, ErrRefused, ErrForked, or those of log.
func (w *Witness) Publish(ctx context.Context, signed []byte, size uint64, log Prover) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if size < w.published {
		return nil
	}
	answer, err := w.add(ctx, signed, size, log)
	if err == nil && answer.status == http.StatusConflict {
		if err = w.learn(answer, size); err == nil {
			answer, err = w.add(ctx, signed, size, log)
		}
	}
	if err == nil {
		err = answer.err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.Name(), err)
	}
	cosigned, err := checkpoint.Cosign(signed, answer.body, w.key)
	if err != nil {
		return fmt.Errorf("%s: %w: its cosignature: %w", w.Name(), ErrUnavailable, err)
	}
	w.published, w.known = size, size
	if w.cosigned != nil {
		w.cosigned(cosigned, size)
	}
	return nil
}

// answer is what the witness said.
type answer struct {
	status int
	body   []byte
}

func (a answer) err() error {
	switch a.status {
	case http.StatusOK:
		return nil
	case http.StatusForbidden, http.StatusNotFound:
		return fmt.Errorf("%w (status %d)", ErrRefused, a.status)
	case http.StatusUnprocessableEntity:
		return fmt.Errorf("%w (status %d)", ErrForked, a.status)
	}
	return fmt.Errorf("%w: status %d", ErrUnavailable, a.status)
}

// add sends the checkpoint with the proof that it follows the known one.
func (w *Witness) add(ctx context.Context, signed []byte, size uint64, log Prover) (answer, error) {
	if w.known > size {
		return answer{}, fmt.Errorf("%w: it knows %d lines, the checkpoint has %d", ErrForked, w.known, size)
	}
	proof, err := log.Consistency(w.known, size)
	if err != nil {
		return answer{}, err
	}
	var body strings.Builder
	fmt.Fprintf(&body, "old %d\n", w.known)
	for _, hash := range proof {
		body.WriteString(base64.StdEncoding.EncodeToString(hash[:]) + "\n")
	}
	body.WriteString("\n" + string(signed))
	return w.post(ctx, body.String())
}

func (w *Witness) post(ctx context.Context, body string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, strings.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	response, err := w.client.Do(request)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, checkpoint.MaxNote))
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return answer{response.StatusCode, text}, nil
}

// learn takes from a conflict the size that the witness knows.
func (w *Witness) learn(a answer, size uint64) error {
	known, err := strconv.ParseUint(strings.TrimSuffix(string(a.body), "\n"), 10, 63)
	if err != nil {
		return fmt.Errorf("%w: status %d without the size that it knows", ErrUnavailable, a.status)
	}
	w.known = known
	if known > size {
		return fmt.Errorf("%w: it knows %d lines, the checkpoint has %d", ErrForked, known, size)
	}
	return nil
}
