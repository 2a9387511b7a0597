package ui

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
)

// Input is a command's data, from a file or from standard input.
type Input struct {
	io.Reader

	Size  int64 // in bytes; -1 when it cannot be known ahead
	close func() error
}

// Open opens the file at path, or stdin when path is empty or "-". Reading ends
// with an error when ctx ends. With text, the data is read as standard base64.
func Open(ctx context.Context, path string, stdin io.Reader, text bool) (*Input, error) {
	in := &Input{Reader: stdin, Size: -1, close: func() error { return nil }}
	if path != "" && path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		in.Reader, in.close = file, file.Close
	}
	if file, ok := in.Reader.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			in.Size = info.Size()
		}
	}
	in.Reader = newContextReader(ctx, in.Reader)
	if text {
		in.Reader = base64Reader{base64.NewDecoder(base64.StdEncoding, in.Reader)}
	}
	return in, nil
}

// Close closes the file.
func (in *Input) Close() error { return in.close() }

// ReadAll reads up to limit bytes; more are an error that names the limit.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, fmt.Errorf("the input is larger than %d bytes", limit)
	}
	return data, err
}

// ReadFile reads a small file of at most limit bytes.
func ReadFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	data, err := ReadAll(file, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// contextReader reads ahead in a goroutine, one read at a time, since a read of a
// pipe or a terminal that waits for data cannot be interrupted itself. When ctx
// ends it gives up; the goroutine ends with its read.
type contextReader struct {
	ctx    context.Context
	r      io.Reader
	buffer []byte     // belongs to the goroutine while a read is under way
	reads  chan chunk // its answers
	unread chunk
}

type chunk struct {
	data []byte
	err  error
}

func newContextReader(ctx context.Context, r io.Reader) *contextReader {
	return &contextReader{ctx: ctx, r: r, buffer: make([]byte, readSize), reads: make(chan chunk, 1)}
}

const readSize = 256 << 10

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	for len(c.unread.data) == 0 {
		if c.unread.err != nil {
			return 0, c.unread.err
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.unread.data)
	c.unread.data = c.unread.data[n:]
	return n, nil
}

func (c *contextReader) fill() error {
	go func() {
		n, err := c.r.Read(c.buffer)
		c.reads <- chunk{c.buffer[:n], err}
	}()
	select {
	case c.unread = <-c.reads:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// ErrBase64 is the error of reading text that is not base64.
var ErrBase64 = errors.New("the input is not standard base64")

type base64Reader struct{ r io.Reader }

func (b base64Reader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if _, corrupt := errors.AsType[base64.CorruptInputError](err); corrupt || errors.Is(err, io.ErrUnexpectedEOF) {
		err = ErrBase64
	}
	return n, err
}

// Base64 decodes text as Open does with text.
func Base64(text []byte) ([]byte, error) {
	return io.ReadAll(base64Reader{base64.NewDecoder(base64.StdEncoding, bytes.NewReader(text))})
}
