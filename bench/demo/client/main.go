// Command client is an application in the demo: a few lines around the generated
// gRPC client, as any program would write them. It knows a server, a bearer token
// and the name of a key, and never sees the key.
//
// It runs one command and ends:
//
//	encrypt  standard input, in pieces, to standard output
//	decrypt  what encrypt wrote
//	load     encrypts short records until the server is gone or SIGTERM ends it, noting in -journal
//	         each one that was acknowledged
//	check    decrypts and compares all that the journal holds
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

// settings is what the application was told.
type settings struct {
	addr, caFile, tokenFile string
	namespace, key          string
	journal                 string
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	flags.StringVar(&s.addr, "addr", "127.0.0.1:7700", "the server's gRPC address")
	flags.StringVar(&s.caFile, "ca-file", "", "certificates that vouch for the server, PEM")
	flags.StringVar(&s.tokenFile, "token-file", "", "file that holds a token")
	flags.StringVar(&s.namespace, "namespace", "", "the key's namespace")
	flags.StringVar(&s.key, "key", "", "the key's name")
	flags.StringVar(&s.journal, "journal", "", "file of acknowledged records")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conn, err := dial(s)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost by it
	a := application{s, keywrightv1.NewCryptoClient(conn)}
	switch flags.Arg(0) {
	case "encrypt":
		return buffered(stdout, func(w io.Writer) error { return a.encrypt(ctx, w, stdin) })
	case "decrypt":
		return buffered(stdout, func(w io.Writer) error { return a.decrypt(ctx, w, bufio.NewReader(stdin)) })
	case "load":
		return a.load(ctx, stdout)
	case "check":
		return a.check(ctx, stdout)
	}
	return fmt.Errorf("%q is no command: want encrypt, decrypt, load or check", flags.Arg(0))
}

// application uses one key.
type application struct {
	settings
	crypto keywrightv1.CryptoClient
}

func dial(s settings) (*grpc.ClientConn, error) {
	pem, err := os.ReadFile(s.caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the CA file holds no certificate")
	}
	token, err := os.ReadFile(s.tokenFile)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(s.addr,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13})),
		grpc.WithPerRPCCredentials(bearer(strings.TrimSpace(string(token)))))
}

// bearer sends a token with each call (RFC 6750), over TLS only.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }

func buffered(out io.Writer, write func(io.Writer) error) error {
	w := bufio.NewWriterSize(out, pieceSize)
	return errors.Join(write(w), w.Flush())
}
