package socket

import (
	"net"
	"slices"
)

// only is a Listener for some local users.
type only struct {
	net.Listener
	uids    []uint32
	refused func(uid uint32)
}

// Only returns l for the given local users; connections of others are closed, and
// refused, if given, is told of them.
func Only(l net.Listener, uids []uint32, refused func(uid uint32)) net.Listener {
	return &only{l, uids, refused}
}

// Accept waits for the next connection of one of the users.
func (l *only) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := PeerUID(c)
		if err == nil && slices.Contains(l.uids, uid) {
			return c, nil
		}
		_ = c.Close() // of a user that is not meant, or gone already
		if err == nil && l.refused != nil {
			l.refused(uid)
		}
	}
}
