// Package ui is what the command line shows and writes: files that appear whole
// or not at all, tables, JSON, questions and progress on a terminal.
//
// The package holds no state. Values belong to the goroutine that made them.
package ui

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Output takes a command's data, to a file or to standard output. A file is
// written beside its place and moved there by Commit, with mode 0600: until then,
// and after Discard, whatever stood there before stands there still.
type Output struct {
	io.Writer

	finish []func() error // in order, when the data is complete
	file   *os.File       // the temporary file; nil for standard output and for devices
	path   string
}

// Create makes an Output for path, or for stdout when path is empty. With text,
// the data is written as standard base64 (RFC 4648) in one line.
func Create(path string, stdout io.Writer, text bool) (*Output, error) {
	o := &Output{Writer: stdout}
	if path != "" {
		if err := o.open(path); err != nil {
			return nil, err
		}
	}
	buffer := bufio.NewWriterSize(o.Writer, 64<<10)
	o.Writer = buffer
	if text {
		encoder := base64.NewEncoder(base64.StdEncoding, buffer)
		o.Writer = encoder
		o.finish = append(o.finish, encoder.Close, func() error { return buffer.WriteByte('\n') })
	}
	o.finish = append(o.finish, buffer.Flush)
	return o, nil
}

// open opens what stands at path if it is a device or a pipe, which cannot be
// replaced, else a temporary file beside it, or beside what a link leads to.
func (o *Output) open(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory; give the path of a file", path)
	}
	if err == nil && !info.Mode().IsRegular() {
		device, err := os.OpenFile(path, os.O_WRONLY, 0)
		o.Writer, o.finish = device, nil
		return err
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	o.path = path
	o.file, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	o.Writer = o.file
	return err
}

// Commit completes the data and puts the file in its place, durably. On an error
// nothing is left of the file.
func (o *Output) Commit() error {
	for _, step := range o.finish {
		if err := step(); err != nil {
			o.Discard()
			return err
		}
	}
	if o.file == nil {
		return nil
	}
	if err := o.place(); err != nil {
		o.Discard()
		return err
	}
	o.file = nil
	return nil
}

func (o *Output) place() error {
	if err := o.file.Sync(); err != nil {
		return err
	}
	if err := o.file.Close(); err != nil {
		return err
	}
	if err := os.Rename(o.file.Name(), o.path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(o.path))
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	defer directory.Close() //nolint:errcheck // it was only read
	return directory.Sync()
}

// Discard removes an unfinished file; after Commit it does nothing.
func (o *Output) Discard() {
	if o.file == nil {
		return
	}
	_ = o.file.Close()           // it may be closed already
	_ = os.Remove(o.file.Name()) // it may have been moved already
	o.file = nil
}

// WriteFile writes data to path as an Output does.
func WriteFile(path string, data []byte) error {
	o, err := Create(path, nil, false)
	if err != nil {
		return err
	}
	defer o.Discard()
	if _, err := o.Write(data); err != nil {
		return err
	}
	return o.Commit()
}
