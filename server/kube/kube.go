// Package kube serves the KMS v2 API of Kubernetes on unix sockets, each bound to one
// key, for API servers on the same machine. It is a thin adapter: package kmsv2 has
// the API's rules, kms the operations; policy, audit and limits are those of any other
// caller, since every request passes the server's gate.
//
// Lifetimes: New listens, Serve serves until Stop or GracefulStop. A Plugin owns its
// socket's path for that time.
//
// Threading: a Plugin serves any number of calls at once.
package kube

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"google.golang.org/grpc"
	v2 "k8s.io/kms/apis/v2"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/identity"
	"github.com/keywright/keywright/server/kube/kmsv2"
)

// Socket is a unix socket that is bound to a key.
type Socket struct {
	Path string
	Mode fs.FileMode // of the socket; 0 is 0600
	// Namespace and Key say which key; Key may be id: and an id.
	Namespace, Key string
	// Principal (Workload::"..." or User::"...") and its Groups are who the API server
	// is to policy and audit.
	Principal string
	Groups    []string
	// UIDs are the local users that are believed to be the API server; none means
	// root and the user of this process, whom alone mode 0600 lets connect.
	UIDs []uint32
}

// Check reports what is wrong with the principal or its groups.
func (s Socket) Check() error { return identity.Peer{Principal: s.Principal, Groups: s.Groups}.Check() }

func (s Socket) peers() (peers []identity.Peer) {
	uids := slices.Clone(s.UIDs)
	if len(uids) == 0 {
		uids = []uint32{0, uint32(os.Geteuid())}
	}
	slices.Sort(uids)
	for _, uid := range slices.Compact(uids) {
		peers = append(peers, identity.Peer{UID: uid, Principal: s.Principal, Groups: s.Groups})
	}
	return peers
}

// Plugin serves one socket.
type Plugin struct {
	socket   Socket
	service  *kms.Service
	api      *kmsv2.Service
	logger   *slog.Logger
	listener *identity.UnixListener
	grpc     *grpc.Server
}

// New listens; nothing is served before Serve.
func New(g *gate.Gate, service *kms.Service, logger *slog.Logger, s Socket) (*Plugin, error) {
	listener, err := identity.ListenUnix(identity.Socket{Path: s.Path, Mode: s.Mode, Peers: s.peers()})
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	logger = logger.With("socket", s.Path, "namespace", s.Namespace, "key", s.Key)
	p := &Plugin{socket: s, service: service, api: kmsv2.New(logger), logger: logger, listener: listener}
	p.grpc = grpc.NewServer(append(kmsv2.ServerOptions(), gate.CodecOption(),
		grpc.Creds((*identity.Files)(nil).Credentials()))...) // none, but for who is at the other end
	p.grpc.RegisterService(p.descriptor(g), nil)
	return p, nil
}

// Serve serves until the Plugin is stopped, and returns nil then.
func (p *Plugin) Serve() error {
	p.logger.Info("serving Kubernetes KMS v2", "principal", p.socket.Principal)
	return p.grpc.Serve(p.listener)
}

// GracefulStop lets the calls under way finish, and removes the socket.
func (p *Plugin) GracefulStop() {
	p.grpc.GracefulStop()
	_ = p.listener.Close()
}

// Stop ends everything at once, and removes the socket.
func (p *Plugin) Stop() {
	p.grpc.Stop()
	_ = p.listener.Close()
}

// descriptor is the table of methods, by which a request passes the gate.
func (p *Plugin) descriptor(g *gate.Gate) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: v2.KeyManagementService_ServiceDesc.ServiceName, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		gate.Row(g, "Status", handler(p, p.api.Status)).DescriptorNamed(func(*v2.StatusRequest) string { return kmsv2.StatusRequestID() }),
		gate.Row(g, "Encrypt", handler(p, p.api.Encrypt)).DescriptorNamed((*v2.EncryptRequest).GetUid),
		gate.Row(g, "Decrypt", handler(p, p.api.Decrypt)).DescriptorNamed((*v2.DecryptRequest).GetUid),
	}}
}
