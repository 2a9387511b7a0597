// Package kube holds the command kube-plugin: a Kubernetes KMS v2 plugin beside an API
// server, for a Keywright that is elsewhere.
//
// The plugin listens on its socket from the beginning, whether or not the server can
// be reached, and tells the API server how things are. It lives until it is
// interrupted, and holds no key.
//
// Threading: any number of calls are served at once.
package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	v2 "k8s.io/kms/apis/v2"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/server/kube/kmsv2"
	"github.com/keywright/keywright/server/socket"
)

// drainTimeout is how long the calls under way may take once the plugin is to end.
const drainTimeout = time.Second

// Commands returns the commands.
func Commands(of *command.App) []*cobra.Command { return []*cobra.Command{pluginCommand(of)} }

func pluginCommand(of *command.App) *cobra.Command {
	p := &plugin{App: of}
	cmd := &cobra.Command{Use: "kube-plugin NAMESPACE/KEY --socket PATH", Short: "Serve Kubernetes KMS v2 on a unix socket, for an API server on this machine",
		Long: `Serve Kubernetes KMS v2 on a unix socket, for an API server on this machine, with a
key of a Keywright server elsewhere. It runs until it is interrupted.

The key is used as whom the connection says (keywright help connection), best by a
client certificate, which may be renewed in place. That principal needs the roles
encrypter and decrypter on the key, and nothing else. The socket is there even while
the server cannot be reached: the API server is told, and sees when it is back.`,
		Example: "  keywright kube-plugin kubernetes/secrets --socket /run/keywright/kubernetes.sock",
		Args:    command.Arguments(1, 1), RunE: of.Local(p.run)}
	cmd.Flags().StringVar(&p.path, "socket", "", "path of the socket; one that a dead process left is replaced")
	cmd.Flags().StringVar(&p.mode, "mode", "0600", "permissions of the socket")
	cmd.Flags().UintSliceVar(&p.uids, "uid", nil, "local users that may use the socket (default root and the user of this process)")
	return cmd
}

// plugin is a run of the command.
type plugin struct {
	*command.App

	path, mode string
	uids       []uint
}

func (p *plugin) run(ctx context.Context, args []string) error {
	namespace, key, err := p.KeyName(args[0])
	if err != nil {
		return err
	}
	mode, err := p.check()
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(p.Err, nil)).With("socket", p.path, "namespace", namespace, "key", key)
	remote, err := newRemote(p.Connect, namespace, key)
	if err != nil {
		return err
	}
	defer remote.close()
	listener, err := socket.Listen(p.path, mode)
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // the socket is gone, or another's
	server := grpc.NewServer(kmsv2.ServerOptions()...)
	v2.RegisterKeyManagementServiceServer(server, &service{api: kmsv2.New(logger), backend: remote})
	logger.Info("serving Kubernetes KMS v2")
	return serve(ctx, server, socket.Only(listener, p.users(), func(uid uint32) {
		logger.Warn("a user that is not meant was refused: name it with --uid", "uid", uid)
	}))
}

func (p *plugin) check() (fs.FileMode, error) {
	if p.path == "" {
		return 0, command.Usagef("name the socket with --socket PATH")
	}
	mode, err := strconv.ParseUint(p.mode, 8, 32)
	if err != nil || mode > 0o777 || mode&0o600 != 0o600 {
		return 0, command.Usagef("--mode is %q: write three octal digits after a 0, such as 0660; this user must be able to read and write", p.mode)
	}
	for _, uid := range p.uids {
		if uid > 1<<32-1 {
			return 0, command.Usagef("--uid %d is no user", uid)
		}
	}
	return fs.FileMode(mode), nil
}

func (p *plugin) users() []uint32 {
	if len(p.uids) == 0 {
		return []uint32{0, uint32(os.Geteuid())}
	}
	users := make([]uint32, len(p.uids))
	for i, uid := range p.uids {
		users[i] = uint32(uid)
	}
	return users
}

// serve serves until ctx ends, and lets the calls under way finish.
func serve(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	cancel := time.AfterFunc(drainTimeout, server.Stop)
	defer cancel.Stop()
	server.GracefulStop()
	if err := <-ended; !errors.Is(err, grpc.ErrServerStopped) { // as when it had not begun
		return err
	}
	return nil
}
