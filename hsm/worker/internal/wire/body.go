package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// AppendUint32 appends four bytes.
func AppendUint32(to []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(to, n) }

// AppendUint64 appends eight bytes.
func AppendUint64(to []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(to, n) }

// AppendDuration appends whole microseconds, rounded up; what is negative counts
// as nothing.
func AppendDuration(to []byte, d time.Duration) []byte {
	if d <= 0 {
		return AppendUint64(to, 0)
	}
	return AppendUint64(to, uint64((d-1)/time.Microsecond)+1)
}

// AppendBool appends a byte, 0 or 1.
func AppendBool(to []byte, b bool) []byte {
	if b {
		return append(to, 1)
	}
	return append(to, 0)
}

// AppendBytes appends a string of bytes behind its length.
func AppendBytes[T ~[]byte | ~string](to []byte, b T) []byte {
	return append(AppendUint32(to, uint32(len(b))), b...)
}

// Body takes a body apart, value by value in the order in which they were appended.
// What is missing reads as zero; Done tells. It belongs to one goroutine.
type Body struct {
	rest   []byte
	failed error
}

// NewBody reads the body of a frame. What Bytes returns shares its memory.
func NewBody(b []byte) *Body { return &Body{rest: b} }

// next returns n bytes, or nil when there are fewer.
func (b *Body) next(n int) []byte {
	if b.failed != nil {
		return nil
	}
	if n > len(b.rest) {
		b.Fail("body ends %d bytes early", n-len(b.rest))
		return nil
	}
	taken := b.rest[:n:n]
	b.rest = b.rest[n:]
	return taken
}

// Fail records that a value is not what it should be; the first such counts.
func (b *Body) Fail(format string, args ...any) {
	if b.failed == nil {
		b.failed = fmt.Errorf("%w: %s", ErrNonsense, fmt.Sprintf(format, args...))
	}
}

// OK tells whether all that was read was there, for loops over a number that the
// body itself has named.
func (b *Body) OK() bool { return b.failed == nil }

// Byte reads one byte.
func (b *Body) Byte() byte {
	if p := b.next(1); p != nil {
		return p[0]
	}
	return 0
}

// Bool reads a byte that is 0 or 1.
func (b *Body) Bool() bool {
	v := b.Byte()
	if v > 1 {
		b.Fail("byte %d for a truth value", v)
	}
	return v == 1
}

// Uint32 reads four bytes.
func (b *Body) Uint32() uint32 {
	if p := b.next(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// Uint64 reads eight bytes.
func (b *Body) Uint64() uint64 {
	if p := b.next(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

// Duration reads microseconds.
func (b *Body) Duration() time.Duration {
	n := b.Uint64()
	if n > math.MaxInt64/uint64(time.Microsecond) {
		b.Fail("duration of %d microseconds", n)
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// Fixed reads as many bytes as p has.
func (b *Body) Fixed(p []byte) { copy(p, b.next(len(p))) }

// Bytes reads a string of bytes; it is nil if it is empty.
func (b *Body) Bytes() []byte {
	n := b.Uint32()
	if n > MaxFrame {
		b.Fail("string of %d bytes", n)
		return nil
	}
	if n == 0 {
		return nil
	}
	return b.next(int(n))
}

// String reads a string.
func (b *Body) String() string { return string(b.Bytes()) }

// Done returns ErrNonsense unless all was read, and all that was read was there.
func (b *Body) Done() error {
	if b.failed == nil && len(b.rest) > 0 {
		b.Fail("%d bytes behind the last value", len(b.rest))
	}
	return b.failed
}
