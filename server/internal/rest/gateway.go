package rest

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/api"
	"github.com/keywright/keywright/server/internal/gate"
)

// forwarded is what a REST request carries through the gateway to its method.
type forwarded struct {
	arrival gate.Arrival
	query   url.Values
}

type forwardedKey struct{}

func forwardedFrom(ctx context.Context) *forwarded {
	if f, ok := ctx.Value(forwardedKey{}).(*forwarded); ok {
		return f
	}
	return &forwarded{}
}

// newGateway routes REST requests by the rules of proto/rest.yaml.
func newGateway(a *api.API) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, strictJSON{}),
		runtime.WithErrorHandler(gatewayError),
		runtime.WithRoutingErrorHandler(routingError),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
	)
	connection := newInProcess(a)
	ctx := context.Background()
	err := errors.Join(
		pb.RegisterCryptoHandlerClient(ctx, mux, pb.NewCryptoClient(connection)),
		pb.RegisterKeysHandlerClient(ctx, mux, pb.NewKeysClient(connection)),
		pb.RegisterNamespacesHandlerClient(ctx, mux, pb.NewNamespacesClient(connection)),
		pb.RegisterPoliciesHandlerClient(ctx, mux, pb.NewPoliciesClient(connection)),
		pb.RegisterTokensHandlerClient(ctx, mux, pb.NewTokensClient(connection)),
		pb.RegisterAuditHandlerClient(ctx, mux, pb.NewAuditClient(connection)),
		pb.RegisterRootsHandlerClient(ctx, mux, pb.NewRootsClient(connection)),
		pb.RegisterSystemHandlerClient(ctx, mux, pb.NewSystemClient(connection)),
	)
	return mux, err
}

// inProcess is a grpc.ClientConnInterface that runs the rows of the table.
type inProcess struct{ methods map[string]gate.Method }

func newInProcess(a *api.API) inProcess {
	c := inProcess{methods: map[string]gate.Method{}}
	for _, s := range a.Services() {
		for _, m := range s.Methods {
			c.methods["/"+s.Name+"/"+m.Descriptor().MethodName] = m
		}
	}
	return c
}

// Invoke implements grpc.ClientConnInterface.
func (c inProcess) Invoke(ctx context.Context, name string, request, reply any, _ ...grpc.CallOption) error {
	m, ok := c.methods[name]
	if !ok {
		return status.Error(codes.Unimplemented, "no such method")
	}
	f := forwardedFrom(ctx)
	if err := checkQuery(request.(proto.Message), f.query); err != nil {
		return err
	}
	response, err := m.Invoke(ctx, f.arrival, request)
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), response)
	return nil
}

// NewStream implements grpc.ClientConnInterface; REST has no streams.
func (inProcess) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "streams are offered over gRPC only")
}

// checkQuery refuses parameters that name no field, which the gateway ignores.
func checkQuery(request proto.Message, query url.Values) error {
	for name := range query {
		field, _, _ := strings.Cut(name, "[")
		field, _, _ = strings.Cut(field, ".")
		if fieldOf(request.ProtoReflect().Descriptor(), field) == nil {
			return &kms.Error{Code: kms.InvalidArgument, Reason: "UNKNOWN_PARAMETER", Field: name, Message: "the query has a parameter that this method does not know"}
		}
	}
	return nil
}

// gatewayError writes what a method returned, or what the gateway itself found
// wrong with path, query or body.
func gatewayError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, req *http.Request, err error) {
	e := gate.AsError(err)
	var malformed *runtime.HTTPStatusError
	if b, ok := req.Body.(*body); ok && b.fault != nil {
		e = b.fault
	} else if errors.As(err, &malformed) {
		e = &kms.Error{Code: kms.InvalidArgument, Reason: "INVALID_PATH", Message: "the path has a malformed escape"}
	}
	writeError(w, e, forwardedFrom(ctx).arrival.RequestID)
}

// routingError answers what no rule matches.
func routingError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, req *http.Request, httpStatus int) {
	e := &kms.Error{Code: kms.NotFound, Reason: "NO_SUCH_PATH", Message: "no such path; the OpenAPI file lists those there are"}
	// A path that only another method has, unless it ends in an unknown verb,
	// which that method would take for a part of a name.
	if httpStatus == http.StatusMethodNotAllowed && !strings.Contains(path.Base(req.URL.Path), ":") {
		e = &kms.Error{Code: kms.InvalidArgument, Reason: gate.ReasonMethod, Message: "this path does not take " + clip(req.Method)}
	}
	writeError(w, e, forwardedFrom(ctx).arrival.RequestID)
}

// clip shortens a caller's own text for an error message.
func clip(s string) string {
	const most = 80
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}
