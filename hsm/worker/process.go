package worker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// process is one worker, as the Supervisor sees it, from its start to its end. Safe
// for concurrent use.
type process struct {
	config  Config
	log     *slog.Logger
	cmd     *exec.Cmd
	conn    net.Conn
	sender  *wire.Sender
	begun   time.Time
	opening chan wire.Frame // Ready or Failed
	places  chan struct{}   // for calls that are not answered yet: one for each session

	generation uint64
	status     hsm.Status // as Ready told it

	mu    sync.Mutex
	calls map[uint64]*asked
	last  uint64
	known sync.Map // of hsm.KeyID: objects that the worker has found

	inFlight atomic.Int64
	lost     atomic.Pointer[error] // why it is of no use any more
	dead     chan struct{}         // closed when lost is set
	reaped   chan struct{}         // closed when the process has ended and nothing of it is left
	running  sync.WaitGroup        // goroutines
	noise    noise
}

// spawn starts a worker and the goroutines around it. It knows nothing of a token
// yet. The caller keeps its thread while the worker lives (see attributes), and gives
// it to nobody else afterwards (see confine).
func spawn(c Config) (*process, error) {
	mine, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := net.FileConn(mine)
	_ = mine.Close() // conn has a duplicate
	if err != nil {
		return nil, err
	}
	stderr, theirStderr, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	defer theirStderr.Close()
	cmd := exec.Command(c.Command[0], c.Command[1:]...) //nolint:gosec // the program itself, or what a test names
	cmd.Args[0] = os.Args[0]
	cmd.Env = environment(c.Env)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = theirStderr
	cmd.SysProcAttr = attributes()
	if err = errors.Join(confine(), closeOnExec()); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a worker: %w", err), conn.Close(), stderr.Close())
	}
	p := &process{config: c, cmd: cmd, conn: conn, sender: wire.NewSender(), begun: time.Now(),
		log:     c.HSM.Logger.With(slog.Int("worker", cmd.Process.Pid)),
		opening: make(chan wire.Frame, 1), calls: map[uint64]*asked{},
		dead: make(chan struct{}), reaped: make(chan struct{})}
	p.attend(stderr)
	return p, nil
}

// socketPair returns both ends, which no other program inherits by chance.
func socketPair() (mine, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for a worker: %w", err)
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "supervisor"), nil
}

// attend starts the goroutines around a worker. They end with it.
func (p *process) attend(stderr *os.File) {
	p.running.Go(func() {
		if err := p.sender.Run(p.conn); err != nil {
			p.lose(fmt.Errorf("cannot write to it: %w", err))
			return
		}
		_ = p.conn.(*net.UnixConn).CloseWrite() // fails if the worker has ended
	})
	heard := make(chan struct{})
	p.running.Go(func() {
		defer close(heard)
		p.lose(p.read())
	})
	p.running.Go(func() { p.listen(stderr) })
	go func() {
		_ = p.cmd.Wait()
		select { // the last that it said counts
		case <-heard:
		case <-time.After(time.Second): // what the module has started may hold the socket open
		}
		p.lose(errors.New("it ended"))
		// What the module has started may hold the pipe open.
		_ = stderr.SetReadDeadline(time.Now().Add(time.Second))
		p.running.Wait()
		_ = stderr.Close()
		close(p.reaped)
	}()
}

// lose ends the worker, for a reason, of which the first counts. Calls that it has
// not answered yet end.
func (p *process) lose(reason error) {
	if !p.lost.CompareAndSwap(nil, &reason) {
		return
	}
	close(p.dead)
	p.sender.Close()
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.conn.Close()
}

// reason says why the worker was lost, once it is reaped.
func (p *process) reason() string {
	text := fmt.Sprintf("%v (%v)", *p.lost.Load(), p.cmd.ProcessState)
	if first := p.noise.first(); first != "" {
		text += fmt.Sprintf(", printed %q", first)
	}
	return text
}

// errEOF is what a worker's end looks like from the socket.
var errEOF = errors.New("it closed the connection")

// read hands out what the worker sends, until that is nonsense.
func (p *process) read() error {
	frames := wire.NewReader(p.conn)
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return errEOF
		}
		if err != nil {
			return err
		}
		switch f.Kind {
		case wire.Answer, wire.Refusal:
			err = p.deliver(f)
		case wire.Ready, wire.Failed:
			err = p.opened(f)
		default:
			err = fmt.Errorf("%w: kind %d from a worker", wire.ErrNonsense, f.Kind)
		}
		if err != nil {
			return err
		}
	}
}

// opened hands the outcome of the start to whoever waits for it.
func (p *process) opened(f wire.Frame) error {
	select {
	case p.opening <- f:
		return nil
	default:
		return fmt.Errorf("%w: started twice", wire.ErrNonsense)
	}
}

// kill ends the worker and waits until nothing is left of it.
func (p *process) kill(reason error) {
	p.lose(reason)
	<-p.reaped
}

// finish lets the worker end by itself, and kills it after a while.
func (p *process) finish(patience time.Duration) error {
	p.sender.Close()
	timer := time.AfterFunc(patience, func() { p.lose(errors.New("it did not end in time")) })
	<-p.reaped
	timer.Stop()
	if !p.cmd.ProcessState.Success() {
		return errors.New("HSM worker: " + p.reason())
	}
	return nil
}

// listen logs what the worker says on standard error: its own log, and what its
// module and the Go runtime print.
func (p *process) listen(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	for lines.Scan() {
		if !relay(p.log, lines.Bytes()) {
			p.noise.add(lines.Text())
			p.log.Debug("HSM worker printed", slog.String("line", lines.Text()))
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // a line too long: the worker must not wait for a reader
}
