// Package plugin holds the commands that serve another program on this machine by means
// of a remote server: the Kubernetes KMS plugin.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	kmsv2 "k8s.io/kms/apis/v2"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/command"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/kube"
	"github.com/keywright/keywright/server/socket"
)

// Commands returns the commands.
func Commands(of *command.App) []*cobra.Command {
	return []*cobra.Command{app{of}.kubeCommand()}
}

// app is a run of the program, with what these commands do.
type app struct{ *command.App }

func (a app) kubeCommand() *cobra.Command {
	var path, mode string
	cmd := &cobra.Command{Use: "kube-plugin NAMESPACE/KEY --socket PATH", Short: "Serve a key to a Kubernetes API server (KMS v2)", Args: command.Arguments(1, 1),
		Long: `Serve a key to a Kubernetes API server on a unix socket (KMS v2), until it is
interrupted. Whoever may open the socket may use the key: its mode and its folder
say who that is. A socket that a dead plugin left is replaced.`}
	cmd.RunE = a.Run(func(ctx context.Context, c *client.Client, args []string) error {
		namespace, key, err := a.KeyName(args[0])
		if err != nil {
			return err
		}
		rights, err := strconv.ParseUint(mode, 8, 32)
		if err != nil || rights > 0o777 || rights&0o600 != 0o600 {
			return command.Usagef("--mode is %q: give octal digits, such as 0600", mode)
		}
		if path == "" {
			return command.Usagef("--socket is missing: name the file that the API server's configuration has as its endpoint")
		}
		return a.serve(ctx, remoteKey{c, namespace, key}, path, fs.FileMode(rights))
	})
	cmd.Flags().StringVar(&path, "socket", "", "the socket's file")
	cmd.Flags().StringVar(&mode, "mode", "0600", "the socket's rights, octal")
	return cmd
}

// serve serves until ctx ends, and then what is under way.
func (a app) serve(ctx context.Context, key remoteKey, path string, mode fs.FileMode) error {
	listener, err := socket.Listen(path, mode)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	kmsv2.RegisterKeyManagementServiceServer(server, kubePlugin{key: key})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(a.Err, "keywright kube-plugin serves %s/%s on %s\n", key.namespace, key.name, path)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		server.GracefulStop()
		return <-served // to be ended is what it is there for
	}
}

// kubePlugin answers an API server.
type kubePlugin struct {
	kmsv2.UnimplementedKeyManagementServiceServer
	key remoteKey
}

// Status implements kmsv2.KeyManagementServiceServer.
func (p kubePlugin) Status(ctx context.Context, _ *kmsv2.StatusRequest) (*kmsv2.StatusResponse, error) {
	return kube.Status(ctx, p.key), nil
}

// Encrypt implements kmsv2.KeyManagementServiceServer.
func (p kubePlugin) Encrypt(ctx context.Context, q *kmsv2.EncryptRequest) (*kmsv2.EncryptResponse, error) {
	answer, err := kube.Encrypt(ctx, p.key, q)
	switch {
	case errors.Is(err, kube.ErrTooLarge):
		err = status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, kube.ErrFraming):
		err = status.Error(codes.FailedPrecondition, err.Error())
	}
	return answer, err
}

// Decrypt implements kmsv2.KeyManagementServiceServer.
func (p kubePlugin) Decrypt(ctx context.Context, q *kmsv2.DecryptRequest) (*kmsv2.DecryptResponse, error) {
	return kube.Decrypt(ctx, p.key, q)
}

// remoteKey is a key of a server.
type remoteKey struct {
	client          *client.Client
	namespace, name string
}

// Encrypt implements kube.Key.
func (k remoteKey) Encrypt(ctx context.Context, plaintext []byte) ([]byte, error) {
	r, err := k.client.Encrypt(ctx, &keywrightv1.EncryptRequest{Namespace: k.namespace, Key: k.name,
		Plaintext: plaintext, EncryptionContext: kube.Context()})
	return r.GetCiphertext(), err
}

// Decrypt implements kube.Key.
func (k remoteKey) Decrypt(ctx context.Context, ciphertext []byte) ([]byte, error) {
	r, err := k.client.Decrypt(ctx, &keywrightv1.DecryptRequest{Namespace: k.namespace, Key: k.name,
		Ciphertext: ciphertext, EncryptionContext: kube.Context()})
	return r.GetPlaintext(), err
}
