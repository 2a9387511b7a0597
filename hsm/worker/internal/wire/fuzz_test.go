package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// A stream is taken apart without a panic, and what comes out of it makes the same
// stream again: there is one encoding of each frame.
func FuzzReader(f *testing.F) {
	seed, _ := Append(nil, Request, 1, func(to []byte) []byte { return AppendBytes(to, "arguments") })
	f.Add(seed)
	f.Add(append(bytes.Clone(seed), seed...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, Version, byte(Answer)})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		var again []byte
		for {
			frame, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrNonsense) {
					t.Fatalf("error of another kind: %v", err)
				}
				break
			}
			if again, err = Append(again, frame.Kind, frame.Call, func(to []byte) []byte { return append(to, frame.Body...) }); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(stream, again) {
			t.Fatal("frames have two encodings")
		}
	})
}
