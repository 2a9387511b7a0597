package audit

import (
	"bytes"
	"io"
)

const (
	roomBytes = 4 << 20   // behind the lines of the last segment, at most
	roomStep  = 256 << 10 // that much of it is made in one turn to write
)

var zeros [roomStep]byte

// askForRoom asks for more room if there is too little behind size, in the turn to write.
func (l *Log) askForRoom(size int64) {
	little := l.room-size <= roomBytes-roomStep && l.room < l.options.SegmentBytes
	if l.options.Durability == ModeFsync && little && !l.cramped {
		wake(l.roomless)
	}
}

// makeRoom writes zeros behind the lines of the last segment. Where a line takes the
// place of blocks that are there already, its fdatasync need not write the file's size
// too, which takes a third of its time; so there is room in ModeFsync alone. It is gone
// from segments that have ended. The step is on disk after the next fdatasync.
func (l *Log) makeRoom() {
	l.writing.Lock()
	defer l.writing.Unlock()
	size := l.last().size
	from := max(l.room, size)
	step := min(roomStep, size+roomBytes-from, l.options.SegmentBytes-from)
	if step <= 0 || l.fault.Load() != nil {
		return
	}
	if _, err := l.file.WriteAt(zeros[:step], from); err != nil { // lines need the disk more
		l.cramped = true
		_ = l.file.Truncate(from) // what is left of it are zeros behind the lines, as before
		return
	}
	l.room = from + step
}

// trim takes the room away, in the turn to write or when nobody writes any more. It
// reports whether there was any; it does so again until there is another segment, since
// the sync that makes it last may fail.
func (l *Log) trim() (trimmed bool, err error) {
	size := l.last().size
	if l.room <= size {
		return false, nil
	}
	return true, l.file.Truncate(size)
}

// unclean returns how many bytes behind the lines are the remains of a crash: all but
// room, in ModeFsync, which has nothing but zeros at its end.
func (l *Log) unclean(from, to int64) (int64, error) {
	if l.options.Durability != ModeFsync {
		return to - from, nil
	}
	remains, block := int64(0), make([]byte, 64<<10)
	for r, at := io.NewSectionReader(l.file, from, to-from), int64(0); ; {
		n, err := r.Read(block)
		if written := bytes.TrimRight(block[:n], "\x00"); len(written) > 0 {
			remains = at + int64(len(written))
		}
		at += int64(n)
		if err == io.EOF {
			return remains, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
