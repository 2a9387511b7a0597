package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/translate"
)

// api is the table of all methods: what gRPC and REST offer.
type api struct {
	gate    *gate
	service *kms.Service
	version string
}

// service is one gRPC service.
type service struct {
	name    string
	methods []method
	streams []grpc.StreamDesc
}

// row makes a row of the table; it is a function so that types are inferred.
func row[Q, P any](a *api, name string, handle handler[Q, P]) *unary[Q, P] {
	return &unary[Q, P]{gate: a.gate, name: name, handle: handle}
}

func (a *api) services() []service {
	return []service{
		{pb.Crypto_ServiceDesc.ServiceName, a.crypto(), a.cryptoStreams()},
		{pb.Keys_ServiceDesc.ServiceName, a.keys(), nil},
		{pb.Namespaces_ServiceDesc.ServiceName, a.namespaces(), nil},
		{pb.Policies_ServiceDesc.ServiceName, a.policies(), nil},
		{pb.Tokens_ServiceDesc.ServiceName, a.tokens(), nil},
		{pb.Audit_ServiceDesc.ServiceName, a.audit(), a.auditStreams()},
		{pb.System_ServiceDesc.ServiceName, a.system(), nil},
	}
}

// register offers the services over gRPC.
func (a *api) register(server *grpc.Server) {
	for _, s := range a.services() {
		descriptor := grpc.ServiceDesc{ServiceName: s.name, HandlerType: (*any)(nil), Streams: s.streams}
		for _, m := range s.methods {
			descriptor.Methods = append(descriptor.Methods, m.descriptor())
		}
		server.RegisterService(&descriptor, nil)
	}
}

func (a *api) crypto() []method {
	s := a.service
	return []method{
		a.encrypt(), a.decrypt(), a.generateDataKey(), a.sign(), a.verify(), a.generateMAC(), a.verifyMAC(),
		row(a, "ReEncrypt", operation(translate.ReEncrypt, s.ReEncrypt, translate.ReEncrypted)),
		row(a, "GenerateDataKeyPair", operation(translate.GenerateDataKeyPair, s.GenerateDataKeyPair, translate.GeneratedDataKeyPair)),
		row(a, "GenerateRandom", operation(translate.GenerateRandom, s.GenerateRandom, translate.GeneratedRandom)),
		row(a, "AsymmetricDecrypt", operation(translate.AsymmetricDecrypt, s.AsymmetricDecrypt, translate.AsymmetricDecrypted)),
		row(a, "DeriveSharedSecret", operation(translate.DeriveSharedSecret, s.SharedSecret, translate.DerivedSharedSecret)),
		row(a, "GetPublicKey", operation(translate.GetPublicKey, s.PublicKey, translate.PublicKey)),
		row(a, "Batch", a.batch),
	}
}

// The methods that REST reads and writes by hand as well.

func (a *api) encrypt() *unary[pb.EncryptRequest, pb.EncryptResponse] {
	return row(a, "Encrypt", operation(translate.Encrypt, a.service.Encrypt, translate.Encrypted))
}

func (a *api) decrypt() *unary[pb.DecryptRequest, pb.DecryptResponse] {
	return row(a, "Decrypt", operation(translate.Decrypt, a.service.Decrypt, translate.Decrypted))
}

func (a *api) generateDataKey() *unary[pb.GenerateDataKeyRequest, pb.GenerateDataKeyResponse] {
	return row(a, "GenerateDataKey", operation(translate.GenerateDataKey, a.service.GenerateDataKey, translate.GeneratedDataKey))
}

func (a *api) sign() *unary[pb.SignRequest, pb.SignResponse] {
	return row(a, "Sign", operation(translate.Sign, a.service.Sign, translate.Signed))
}

func (a *api) verify() *unary[pb.VerifyRequest, pb.VerifyResponse] {
	return row(a, "Verify", operation(translate.Verify, a.service.Verify, translate.Verified))
}

func (a *api) generateMAC() *unary[pb.GenerateMacRequest, pb.GenerateMacResponse] {
	return row(a, "GenerateMac", operation(translate.GenerateMAC, a.service.GenerateMAC, translate.GeneratedMAC))
}

func (a *api) verifyMAC() *unary[pb.VerifyMacRequest, pb.VerifyMacResponse] {
	return row(a, "VerifyMac", operation(translate.VerifyMAC, a.service.VerifyMAC, translate.VerifiedMAC))
}

func (a *api) keys() []method {
	s := a.service
	return []method{
		row(a, "CreateKey", command(translate.CreateKey, s.CreateKey, translate.Key)),
		row(a, "GetKey", command(translate.GetKey, s.GetKey, translate.Key)),
		row(a, "ListKeys", listing(translate.ListKeys, s.ListKeys, translate.Keys)),
		row(a, "UpdateKey", command(translate.UpdateKey, s.UpdateKey, translate.Key)),
		row(a, "RotateKey", command(translate.RotateKey, s.RotateKey, translate.KeyVersion)),
		row(a, "GetVersion", command(translate.GetVersion, s.GetVersion, translate.KeyVersion)),
		row(a, "ListVersions", listing(translate.ListVersions, s.ListVersions, translate.KeyVersions)),
		row(a, "SetPrimaryVersion", command(translate.SetPrimaryVersion, s.SetPrimaryVersion, translate.Key)),
		row(a, "EnableVersion", command(translate.EnableVersion, s.EnableVersion, translate.KeyVersion)),
		row(a, "DisableVersion", command(translate.DisableVersion, s.DisableVersion, translate.KeyVersion)),
		row(a, "DestroyVersion", command(translate.DestroyVersion, s.DestroyVersion, translate.KeyVersion)),
		row(a, "RestoreVersion", command(translate.RestoreVersion, s.RestoreVersion, translate.KeyVersion)),
		row(a, "DeleteKey", command(translate.DeleteKey, s.DeleteKey, translate.Key)),
		row(a, "RestoreKey", command(translate.RestoreKey, s.RestoreKey, translate.Key)),
	}
}

func (a *api) namespaces() []method {
	s := a.service
	return []method{
		row(a, "CreateNamespace", command(translate.CreateNamespace, s.CreateNamespace, translate.Namespace)),
		row(a, "GetNamespace", command(translate.GetNamespace, s.GetNamespace, translate.Namespace)),
		row(a, "ListNamespaces", listing(translate.ListNamespaces, s.ListNamespaces, translate.Namespaces)),
		row(a, "UpdateNamespace", command(translate.UpdateNamespace, s.UpdateNamespace, translate.Namespace)),
	}
}

func (a *api) policies() []method {
	s := a.service
	return []method{
		row(a, "PutPolicy", command(translate.PutPolicy, s.PutPolicy, translate.Policy)),
		row(a, "GetPolicy", command(translate.GetPolicy, s.GetPolicy, translate.Policy)),
		row(a, "ListPolicies", listing(translate.ListPolicies, s.ListPolicies, translate.Policies)),
		row(a, "DeletePolicy", a.deletePolicy),
	}
}

func (a *api) deletePolicy(ctx context.Context, call kms.Call, q *pb.DeletePolicyRequest) (*pb.DeletePolicyResponse, error) {
	ref, err := translate.DeletePolicy(q)
	if err != nil {
		return nil, err
	}
	return &pb.DeletePolicyResponse{}, a.service.DeletePolicy(ctx, call, ref)
}

func (a *api) tokens() []method {
	return []method{
		row(a, "CreateToken", command(translate.CreateToken, a.service.CreateToken, translate.NewToken)),
		row(a, "WhoAmI", a.whoAmI),
	}
}

func (a *api) whoAmI(_ context.Context, call kms.Call, _ *pb.WhoAmIRequest) (*pb.WhoAmIResponse, error) {
	return translate.WhoAmI(call.Caller), nil
}

func (a *api) audit() []method { return []method{row(a, "ListEntries", a.listEntries)} }

func (a *api) listEntries(ctx context.Context, call kms.Call, q *pb.ListEntriesRequest) (*pb.ListEntriesResponse, error) {
	filter, err := translate.ListEntries(q)
	if err != nil {
		return nil, err
	}
	entries, err := a.service.ListAudit(ctx, call, filter)
	if err != nil {
		return nil, err
	}
	return translate.Entries(entries, filter), nil
}

func (a *api) system() []method {
	return []method{row(a, "GetStatus", a.getStatus), row(a, "ListAlgorithms", a.listAlgorithms)}
}

func (a *api) getStatus(ctx context.Context, call kms.Call, _ *pb.GetStatusRequest) (*pb.Status, error) {
	status, err := a.service.GetStatus(ctx, call)
	if err != nil {
		return nil, err
	}
	return translate.Status(status, a.version), nil
}

// listAlgorithms answers from the table that is the same for everybody.
func (a *api) listAlgorithms(context.Context, kms.Call, *pb.ListAlgorithmsRequest) (*pb.ListAlgorithmsResponse, error) {
	return translate.Algorithms(), nil
}
