package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// loadWorkers is how many calls of load are under way at a time.
const loadWorkers = 4

// acknowledged is one line of the journal: what the server said it encrypted.
type acknowledged struct {
	Plaintext  []byte `json:"plaintext"`
	Ciphertext []byte `json:"ciphertext"`
	Version    uint32 `json:"version"`
}

// journal is written by several workers.
type journal struct {
	lock    sync.Mutex
	encoder *json.Encoder
	lines   int
}

func (j *journal) add(line acknowledged) error {
	j.lock.Lock()
	defer j.lock.Unlock()
	j.lines++
	return j.encoder.Encode(line)
}

// load encrypts until the server is gone, or SIGTERM ends it. A call that fails
// for any other reason is an error.
func (a application) load(ctx context.Context, out io.Writer) error {
	file, err := os.OpenFile(a.journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	j := &journal{encoder: json.NewEncoder(file)}
	ends := make([]error, loadWorkers)
	var workers sync.WaitGroup
	for i := range ends {
		workers.Go(func() { ends[i] = a.loadUntilGone(ctx, j) })
	}
	workers.Wait()
	if err := errors.Join(append(ends, file.Close())...); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, j.lines)
	return err
}

func (a application) loadUntilGone(ctx context.Context, j *journal) error {
	for {
		line := acknowledged{Plaintext: []byte(rand.Text())}
		response, err := a.crypto.Encrypt(ctx, &keywrightv1.EncryptRequest{Namespace: a.namespace, Key: a.key, Plaintext: line.Plaintext})
		if status.Code(err) == codes.Unavailable || ctx.Err() != nil {
			return nil //nolint:nilerr // this is how it is meant to end
		}
		if err != nil {
			return err
		}
		line.Ciphertext, line.Version = response.GetCiphertext(), response.GetVersion()
		if err := j.add(line); err != nil {
			return err
		}
	}
}

// check decrypts what the journal holds and says how much that was, under how
// many versions.
func (a application) check(ctx context.Context, out io.Writer) error {
	file, err := os.Open(a.journal)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	lines, versions := 0, map[uint32]bool{}
	for decoder := json.NewDecoder(file); ; lines++ {
		var line acknowledged
		if err := decoder.Decode(&line); errors.Is(err, io.EOF) {
			_, err = fmt.Fprintf(out, "%d %d\n", lines, len(versions))
			return err
		} else if err != nil {
			return err
		}
		if err := a.checkLine(ctx, line); err != nil {
			return fmt.Errorf("record %d, version %d: %w", lines+1, line.Version, err)
		}
		versions[line.Version] = true
	}
}

func (a application) checkLine(ctx context.Context, line acknowledged) error {
	response, err := a.crypto.Decrypt(ctx, &keywrightv1.DecryptRequest{Namespace: a.namespace, Key: a.key, Ciphertext: line.Ciphertext})
	if err != nil {
		return err
	}
	if !bytes.Equal(response.GetPlaintext(), line.Plaintext) || response.GetVersion() != line.Version {
		return errors.New("decrypted to something else")
	}
	return nil
}
