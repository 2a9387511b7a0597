package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/keywright/keywright/kms/policy"
)

// Socket is a unix socket to listen on. Whoever may connect, by Mode and the
// directories above, and is not among Peers needs a token.
type Socket struct {
	Path  string
	Mode  fs.FileMode // of the socket; 0 is 0600
	Peers []Peer
}

// Peer maps a local user to a principal: Workload::"..." or User::"...".
type Peer struct {
	UID       uint32
	Principal string
	Groups    []string
}

// ErrSocketInUse says that another process listens on a unix socket.
var ErrSocketInUse = errors.New("another process listens there")

// UnixListener accepts connections whose peers the operating system names
// (SO_PEERCRED, unix(7)). It owns its socket's path from ListenUnix to Close.
type UnixListener struct {
	net.Listener
	path  string
	made  fs.FileInfo
	peers map[uint32]*policy.Caller
}

// ListenUnix makes the socket: under another name first, so that it is never there
// with other rights than s.Mode, and in place of one that a dead process left.
func ListenUnix(s Socket) (*UnixListener, error) {
	l := &UnixListener{path: s.Path, peers: map[uint32]*policy.Caller{}}
	for _, peer := range s.Peers {
		if err := l.add(peer); err != nil {
			return nil, fmt.Errorf("unix socket %s: %w", s.Path, err)
		}
	}
	if err := checkFree(s.Path); err != nil {
		return nil, fmt.Errorf("unix socket %s: %w", s.Path, err)
	}
	if err := l.listen(s.Mode); err != nil {
		return nil, fmt.Errorf("unix socket %s: %w", s.Path, err)
	}
	return l, nil
}

// groupName is the form of a group's name, as for tokens.
var groupName = bundleName

// maxPeerGroups bounds a peer's groups, as a token's.
const maxPeerGroups = 16

func (l *UnixListener) add(p Peer) error {
	caller, err := p.caller()
	if err != nil {
		return err
	}
	if l.peers[p.UID] != nil {
		return fmt.Errorf("uid %d is mapped twice", p.UID)
	}
	l.peers[p.UID] = caller
	return nil
}

// Check reports what is wrong with the mapping of a peer.
func (p Peer) Check() error {
	_, err := p.caller()
	return err
}

func (p Peer) caller() (*policy.Caller, error) {
	kind, id, err := policy.ParsePrincipal(p.Principal)
	if err != nil || kind == policy.Token {
		return nil, fmt.Errorf(`%q is no principal of a local user; write one such as Workload::"local:app" or User::"local:alice"`, p.Principal)
	}
	if len(p.Groups) > maxPeerGroups {
		return nil, fmt.Errorf("%d groups, the limit is %d", len(p.Groups), maxPeerGroups)
	}
	for _, group := range p.Groups {
		if !groupName.MatchString(group) {
			return nil, fmt.Errorf("%q is no group's name, which has 1 to 63 letters, digits, '.', '_' and '-'", group)
		}
	}
	return &policy.Caller{Type: kind, ID: id, Groups: p.Groups, Method: "unix"}, nil
}

// checkFree fails if anybody listens at path, or if something lies there that is
// no socket.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("something is there that is no socket; move it away, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return ErrSocketInUse
	}
	return nil
}

func (l *UnixListener) listen(mode fs.FileMode) error {
	if mode == 0 {
		mode = 0o600
	}
	dir, err := os.MkdirTemp(filepath.Dir(l.path), ".kw-") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is empty but for what failed
	first := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: first, Net: "unix"})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	l.Listener = listener
	if err = os.Chmod(first, mode.Perm()); err == nil {
		err = os.Rename(first, l.path)
	}
	if err == nil {
		l.made, err = os.Lstat(l.path)
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return nil
}

// Accept waits for the next connection.
func (l *UnixListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(accepted)
		if err != nil { // it is gone already, or cannot be told who it is
			_ = accepted.Close()
			continue
		}
		return &conn{Conn: accepted, state: &Connection{accepted: time.Now(), local: true, uid: uid, peer: l.peers[uid]}}, nil
	}
}

// Addr returns the path.
func (l *UnixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close ends listening and removes the socket, unless another has taken its place.
func (l *UnixListener) Close() error {
	err := l.Listener.Close()
	if info, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(info, l.made) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}
