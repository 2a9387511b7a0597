package server

import (
	"net"

	"google.golang.org/grpc"

	"github.com/keywright/keywright/server/internal/api"
	"github.com/keywright/keywright/server/internal/identity"
)

// KubernetesSocket is a unix socket that speaks Kubernetes KMS v2 for one key, to the
// peers that it names, with their rights on the key.
type KubernetesSocket struct {
	Socket
	Namespace, Key string
}

// plugin is what serves a KubernetesSocket: nothing else is served there.
type plugin struct {
	socket   KubernetesSocket
	listener net.Listener
	server   *grpc.Server // nil until build
}

func (s *Server) listenKubernetes() error {
	for _, socket := range s.config.Kubernetes {
		listener, err := identity.ListenUnix(socket.Socket)
		if err != nil {
			return err
		}
		s.plugins = append(s.plugins, plugin{socket: socket, listener: listener})
	}
	return nil
}

func (s *Server) buildKubernetes(a *api.API) {
	for i := range s.plugins {
		p := &s.plugins[i]
		p.server = s.newGRPC()
		a.RegisterKubernetes(p.server, p.socket.Namespace, p.socket.Key)
	}
}

func (p plugin) close() {
	if p.server != nil {
		p.server.Stop()
	}
	_ = p.listener.Close()
}
