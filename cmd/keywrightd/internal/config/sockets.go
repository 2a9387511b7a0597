package config

import (
	"fmt"
	"io/fs"
	"regexp"

	"github.com/keywright/keywright/server"
)

// checkSockets looks at the unix sockets, of which no two may have the same path.
func (l *Listen) checkSockets(p *problems) {
	paths := map[string]bool{}
	checkFile := func(field, path string, mode Mode) {
		p.require(path != "", field+".path", "is missing: name the socket's file")
		p.require(!paths[path], field+".path", "%q stands there twice: give each socket a path of its own", path)
		p.require(mode&0o600 == 0o600 || mode == 0, field+".mode", "is %#o: the server's own user must be able to read and write", uint32(mode))
		paths[path] = true
	}
	for i, socket := range l.Unix {
		field := fmt.Sprintf("listen.unix[%d]", i)
		checkFile(field, socket.Path, socket.Mode)
		socket.checkPeers(p, field)
	}
	for i, socket := range l.Kubernetes {
		field := fmt.Sprintf("listen.kubernetes[%d]", i)
		checkFile(field, socket.Path, socket.Mode)
		socket.check(p, field)
	}
}

func (s *Socket) checkPeers(p *problems, field string) {
	seen := map[uint32]bool{}
	for i, peer := range s.Peers {
		at := fmt.Sprintf("%s.peers[%d]", field, i)
		p.require(peer.UID != nil, at+".uid", "is missing: name the local user by number")
		if peer.UID == nil {
			continue
		}
		p.require(!seen[*peer.UID], at+".uid", "%d stands there twice: a user is one principal", *peer.UID)
		seen[*peer.UID] = true
		err := server.Peer{UID: *peer.UID, Principal: peer.Principal, Groups: peer.Groups}.Check()
		p.require(err == nil, at, "%v", err)
	}
}

// keyName is the name of a key, or its id.
var keyName = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,62}|id:[0-9a-f]{16})$`)

func (s *KubernetesSocket) check(p *problems, field string) {
	p.require(bundleName.MatchString(s.Namespace), field+".namespace", "is %q: name the key's namespace", s.Namespace)
	p.require(keyName.MatchString(s.Key), field+".key", "is %q: name the key that the socket is for, or write id: and its id", s.Key)
	err := s.Of().Check()
	p.require(err == nil, field+".principal", "is wrong: %v", err)
}

// Of returns the socket as the server takes it.
func (s *KubernetesSocket) Of() server.KubernetesSocket {
	return server.KubernetesSocket{Path: s.Path, Mode: fs.FileMode(s.Mode), Namespace: s.Namespace, Key: s.Key,
		Principal: s.Principal, Groups: s.Groups, UIDs: s.UIDs}
}
