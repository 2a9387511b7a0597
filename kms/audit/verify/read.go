package verify

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/keywright/keywright/kms/audit/internal/layout"
	"github.com/keywright/keywright/kms/audit/tree"
)

// pieceBytes is how much is read at once.
const pieceBytes = 1 << 20

// piece is a stretch of whole lines of one segment.
type piece struct {
	segment layout.Segment
	begins  bool   // it is the first of its segment
	last    bool   // its segment is the last of the log
	torn    int64  // bytes behind the last whole line of the segment, in its last piece
	offset  int64  // of the first line, in the segment
	block   []byte // a byte of room, and the lines
	err     error

	done    chan struct{} // closed when the following are there
	numbers []uint64
	leaves  []tree.Hash
	starts  []int64 // of each line, and of the line with the problem, from the first line
	problem string  // of the line behind the leaves
}

func (p *piece) name() string { return layout.SegmentName(p.segment.First) }

// hash reads the numbers of the lines and hashes them, up to one that is none.
func (p *piece) hash() {
	defer close(p.done)
	for at := 0; at+1 < len(p.block); {
		p.starts = append(p.starts, int64(at))
		end := at + 1 + bytes.IndexByte(p.block[at+1:], '\n')
		number, ok := layout.Head(p.block[at+1 : end])
		if !ok || end-at > layout.MaxLineBytes+1 {
			p.problem = "it is no line of an audit log"
			return
		}
		p.numbers = append(p.numbers, number)
		p.leaves = append(p.leaves, tree.LeafHash(p.block[at:end]))
		at = end
	}
}

// read gives the lines of the segments to take, in order, until that returns
// false. Reading, hashing and taking go on at the same time.
func read(ctx context.Context, dir string, segments []layout.Segment, progress func(done, total int64), take func(*piece) (bool, error)) error {
	ctx, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	workers := runtime.GOMAXPROCS(0)
	jobs, ordered := make(chan *piece), make(chan *piece, 2*workers)
	for range workers {
		group.Go(func() {
			for p := range jobs {
				p.hash()
			}
		})
	}
	group.Go(func() {
		defer close(ordered)
		defer close(jobs)
		for i, s := range segments {
			if !cut(ctx, dir, s, i == len(segments)-1, jobs, ordered) {
				return
			}
		}
	})
	return takeAll(ctx, ordered, segments, progress, take)
}

func takeAll(ctx context.Context, ordered <-chan *piece, segments []layout.Segment, progress func(done, total int64), take func(*piece) (bool, error)) error {
	var done, total int64
	for _, s := range segments {
		total += s.Size
	}
	for p := range ordered {
		if p.err != nil {
			return p.err
		}
		<-p.done
		goOn, err := take(p)
		if err != nil || !goOn {
			return err
		}
		if done += int64(len(p.block)) - 1 + p.torn; progress != nil {
			progress(done, total)
		}
	}
	return ctx.Err()
}

// cut reads one segment in pieces. False says that nobody wants more.
func cut(ctx context.Context, dir string, s layout.Segment, last bool, jobs, ordered chan<- *piece) bool {
	send := func(p *piece) bool {
		p.segment, p.last, p.done = s, last, make(chan struct{})
		// To the workers first: whoever takes a piece waits for its hashes.
		if p.err == nil {
			select {
			case jobs <- p:
			case <-ctx.Done():
				return false
			}
		}
		select {
		case ordered <- p:
			return p.err == nil
		case <-ctx.Done():
			return false
		}
	}
	file, err := os.Open(filepath.Join(dir, layout.SegmentName(s.First)))
	if err != nil {
		return send(&piece{err: err})
	}
	defer file.Close()
	r := io.LimitReader(file, s.Size) // what is written meanwhile is another matter
	p := &piece{begins: true, block: make([]byte, 1, pieceBytes)}
	for {
		n, err := io.ReadFull(r, p.block[len(p.block):cap(p.block)])
		p.block = p.block[:len(p.block)+n]
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF { //nolint:errorlint // ReadFull returns them bare
			return send(&piece{err: err})
		}
		whole := 1 + bytes.LastIndexByte(p.block[1:], '\n') + 1
		rest := p.block[whole:]
		if err != nil { // the end
			p.block, p.torn = p.block[:whole], int64(len(rest))
			return send(p)
		}
		if whole == 1 { // a line longer than the block
			if len(p.block) > layout.MaxLineBytes+1 {
				p.block[len(p.block)-1] = '\n' // it is none, which hash will find
				return send(p)
			}
			p.block = append(make([]byte, 0, 4*cap(p.block)), p.block...)
			continue
		}
		next := &piece{offset: p.offset + int64(whole) - 1, block: append(make([]byte, 1, pieceBytes+len(rest)), rest...)}
		p.block = p.block[:whole]
		if !send(p) {
			return false
		}
		p = next
	}
}
