package identity

import (
	"fmt"
	"io/fs"
	"net"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/server/socket"
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
var ErrSocketInUse = socket.ErrInUse

// UnixListener accepts connections whose peers the operating system names
// (SO_PEERCRED, unix(7)). It owns its socket's path from ListenUnix to Close.
type UnixListener struct {
	net.Listener
	peers map[uint32]*policy.Caller
}

// ListenUnix makes the socket, in place of one that a dead process left.
func ListenUnix(s Socket) (*UnixListener, error) {
	l := &UnixListener{peers: map[uint32]*policy.Caller{}}
	for _, peer := range s.Peers {
		if err := l.add(peer); err != nil {
			return nil, fmt.Errorf("unix socket %s: %w", s.Path, err)
		}
	}
	listener, err := socket.Listen(s.Path, s.Mode)
	if err != nil {
		return nil, err
	}
	l.Listener = listener
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

// Accept waits for the next connection.
func (l *UnixListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := socket.PeerUID(accepted)
		if err != nil { // it is gone already, or cannot be told who it is
			_ = accepted.Close()
			continue
		}
		return &conn{Conn: accepted, state: &Connection{accepted: time.Now(), local: true, uid: uid, peer: l.peers[uid]}}, nil
	}
}
