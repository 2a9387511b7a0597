package api

import (
	"context"

	"google.golang.org/grpc"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/translate"
)

// API is the table of all methods: what gRPC and REST offer.
type API struct {
	gate    *gate.Gate
	service *kms.Service
	version string
}

// New returns the table for a core behind a gate; version is the server's.
func New(g *gate.Gate, service *kms.Service, version string) *API {
	return &API{gate: g, service: service, version: version}
}

// Service is one gRPC service: its name in full, unary methods and streams.
type Service struct {
	Name    string
	Methods []gate.Method
	Streams []grpc.StreamDesc
}

func row[Q, P any](a *API, name string, handle gate.Handler[Q, P]) *gate.Unary[Q, P] {
	return gate.Row(a.gate, name, handle)
}

// operation is a row of the hot path.
func operation[Q, P any](a *API, name string, handle gate.Handler[Q, P]) *gate.Unary[Q, P] {
	return row(a, name, handle).Terse()
}

// Services returns the whole table.
func (a *API) Services() []Service {
	return []Service{
		{pb.Crypto_ServiceDesc.ServiceName, a.crypto(), a.cryptoStreams()},
		{pb.Keys_ServiceDesc.ServiceName, a.keys(), nil},
		{pb.Namespaces_ServiceDesc.ServiceName, a.namespaces(), nil},
		{pb.Policies_ServiceDesc.ServiceName, a.policies(), nil},
		{pb.Tokens_ServiceDesc.ServiceName, a.tokens(), nil},
		{pb.Audit_ServiceDesc.ServiceName, a.audit(), a.auditStreams()},
		{pb.Roots_ServiceDesc.ServiceName, a.roots(), nil},
		{pb.System_ServiceDesc.ServiceName, a.system(), nil},
	}
}

// Register offers the services over gRPC.
func (a *API) Register(server *grpc.Server) {
	for _, s := range a.Services() {
		descriptor := grpc.ServiceDesc{ServiceName: s.Name, HandlerType: (*any)(nil), Streams: s.Streams}
		for _, m := range s.Methods {
			descriptor.Methods = append(descriptor.Methods, m.Descriptor())
		}
		server.RegisterService(&descriptor, nil)
	}
}

func (a *API) crypto() []gate.Method {
	s := a.service
	return []gate.Method{
		a.Encrypt(), a.Decrypt(), a.GenerateDataKey(), a.Sign(), a.Verify(), a.GenerateMAC(), a.VerifyMAC(),
		operation(a, "ReEncrypt", gate.Operation(translate.ReEncrypt, s.ReEncrypt, translate.ReEncrypted)),
		operation(a, "GenerateDataKeyPair", gate.Operation(translate.GenerateDataKeyPair, s.GenerateDataKeyPair, translate.GeneratedDataKeyPair)),
		operation(a, "GenerateRandom", gate.Operation(translate.GenerateRandom, s.GenerateRandom, translate.GeneratedRandom)),
		operation(a, "AsymmetricDecrypt", gate.Operation(translate.AsymmetricDecrypt, s.AsymmetricDecrypt, translate.AsymmetricDecrypted)),
		operation(a, "DeriveSharedSecret", gate.Operation(translate.DeriveSharedSecret, s.SharedSecret, translate.DerivedSharedSecret)),
		operation(a, "GetPublicKey", gate.Operation(translate.GetPublicKey, s.PublicKey, translate.PublicKey)),
		operation(a, "Batch", a.batch),
	}
}

// Encrypt is the row of that method, which REST also reads and writes by hand.
func (a *API) Encrypt() *gate.Unary[pb.EncryptRequest, pb.EncryptResponse] {
	return operation(a, "Encrypt", gate.Operation(translate.Encrypt, a.service.Encrypt, translate.Encrypted))
}

// Decrypt is the row of that method, which REST also reads and writes by hand.
func (a *API) Decrypt() *gate.Unary[pb.DecryptRequest, pb.DecryptResponse] {
	return operation(a, "Decrypt", gate.Operation(translate.Decrypt, a.service.Decrypt, translate.Decrypted))
}

// GenerateDataKey is the row of that method, which REST also reads and writes by hand.
func (a *API) GenerateDataKey() *gate.Unary[pb.GenerateDataKeyRequest, pb.GenerateDataKeyResponse] {
	return operation(a, "GenerateDataKey", gate.Operation(translate.GenerateDataKey, a.service.GenerateDataKey, translate.GeneratedDataKey))
}

// Sign is the row of that method, which REST also reads and writes by hand.
func (a *API) Sign() *gate.Unary[pb.SignRequest, pb.SignResponse] {
	return operation(a, "Sign", gate.Operation(translate.Sign, a.service.Sign, translate.Signed))
}

// Verify is the row of that method, which REST also reads and writes by hand.
func (a *API) Verify() *gate.Unary[pb.VerifyRequest, pb.VerifyResponse] {
	return operation(a, "Verify", gate.Operation(translate.Verify, a.service.Verify, translate.Verified))
}

// GenerateMAC is the row of that method, which REST also reads and writes by hand.
func (a *API) GenerateMAC() *gate.Unary[pb.GenerateMacRequest, pb.GenerateMacResponse] {
	return operation(a, "GenerateMac", gate.Operation(translate.GenerateMAC, a.service.GenerateMAC, translate.GeneratedMAC))
}

// VerifyMAC is the row of that method, which REST also reads and writes by hand.
func (a *API) VerifyMAC() *gate.Unary[pb.VerifyMacRequest, pb.VerifyMacResponse] {
	return operation(a, "VerifyMac", gate.Operation(translate.VerifyMAC, a.service.VerifyMAC, translate.VerifiedMAC))
}

func (a *API) keys() []gate.Method {
	s := a.service
	return []gate.Method{
		row(a, "CreateKey", gate.Command(translate.CreateKey, s.CreateKey, translate.Key)),
		row(a, "GetKey", gate.Command(translate.GetKey, s.GetKey, translate.Key)),
		row(a, "ListKeys", gate.Listing(translate.ListKeys, s.ListKeys, translate.Keys)),
		row(a, "UpdateKey", gate.Command(translate.UpdateKey, s.UpdateKey, translate.Key)),
		row(a, "RotateKey", gate.Command(translate.RotateKey, s.RotateKey, translate.KeyVersion)),
		row(a, "GetVersion", gate.Command(translate.GetVersion, s.GetVersion, translate.KeyVersion)),
		row(a, "ListVersions", gate.Listing(translate.ListVersions, s.ListVersions, translate.KeyVersions)),
		row(a, "SetPrimaryVersion", gate.Command(translate.SetPrimaryVersion, s.SetPrimaryVersion, translate.Key)),
		row(a, "EnableVersion", gate.Command(translate.EnableVersion, s.EnableVersion, translate.KeyVersion)),
		row(a, "DisableVersion", gate.Command(translate.DisableVersion, s.DisableVersion, translate.KeyVersion)),
		row(a, "DestroyVersion", gate.Command(translate.DestroyVersion, s.DestroyVersion, translate.KeyVersion)),
		row(a, "RestoreVersion", gate.Command(translate.RestoreVersion, s.RestoreVersion, translate.KeyVersion)),
		row(a, "DeleteKey", gate.Command(translate.DeleteKey, s.DeleteKey, translate.Key)),
		row(a, "GetImportParameters", gate.Command(translate.GetImportParameters, s.GetImportParameters, translate.ImportParameters)),
		row(a, "ImportKey", gate.Command(translate.ImportKey, s.ImportKey, translate.Key)),
		row(a, "ImportKeyVersion", gate.Command(translate.ImportKeyVersion, s.ImportVersion, translate.KeyVersion)),
		row(a, "ExportKey", gate.Command(translate.ExportKey, s.ExportKey, translate.ExportedKey)),
		row(a, "RestoreVaultKey", gate.Command(translate.RestoreVaultKey, s.RestoreTransitKey, translate.Key)),
		row(a, "BackupVaultKey", gate.Command(translate.BackupVaultKey, s.BackupTransitKey, translate.VaultBackup)),
		row(a, "RestoreKey", gate.Command(translate.RestoreKey, s.RestoreKey, translate.Key)),
	}
}

func (a *API) namespaces() []gate.Method {
	s := a.service
	return []gate.Method{
		row(a, "CreateNamespace", gate.Command(translate.CreateNamespace, s.CreateNamespace, translate.Namespace)),
		row(a, "GetNamespace", gate.Command(translate.GetNamespace, s.GetNamespace, translate.Namespace)),
		row(a, "ListNamespaces", gate.Listing(translate.ListNamespaces, s.ListNamespaces, translate.Namespaces)),
		row(a, "UpdateNamespace", gate.Command(translate.UpdateNamespace, s.UpdateNamespace, translate.Namespace)),
		row(a, "DeleteNamespace", gate.Command(translate.DeleteNamespace, s.DeleteNamespace, translate.Namespace)),
		row(a, "RestoreNamespace", gate.Command(translate.RestoreNamespace, s.RestoreNamespace, translate.Namespace)),
		row(a, "RekeyNamespace", gate.Command(translate.RekeyNamespace, s.RekeyNamespace, translate.Namespace)),
		row(a, "MigrateNamespace", gate.Command(translate.MigrateNamespace, s.MigrateNamespace, translate.Namespace)),
		row(a, "ConfirmErasure", gate.Command(translate.ConfirmErasure, s.ConfirmErasure, translate.Namespace)),
	}
}

func (a *API) policies() []gate.Method {
	s := a.service
	return []gate.Method{
		row(a, "PutPolicy", gate.Command(translate.PutPolicy, s.PutPolicy, translate.Policy)),
		row(a, "GetPolicy", gate.Command(translate.GetPolicy, s.GetPolicy, translate.Policy)),
		row(a, "ListPolicies", gate.Listing(translate.ListPolicies, s.ListPolicies, translate.Policies)),
		row(a, "DeletePolicy", a.deletePolicy),
		row(a, "PutGroup", gate.Command(translate.PutGroup, s.PutGroup, translate.Group)),
		row(a, "GetGroup", gate.Command(translate.GetGroup, s.GetGroup, translate.Group)),
		row(a, "ListGroups", gate.Listing(translate.ListGroups, s.ListGroups, translate.Groups)),
		row(a, "DeleteGroup", a.deleteGroup),
		row(a, "ExplainDecision", gate.Command(translate.ExplainDecision, s.ExplainDecision, translate.ExplainedDecision)),
		row(a, "TestPolicies", gate.Command(translate.TestPolicies, s.TestPolicies, translate.TestedPolicies)),
		row(a, "DiffPolicies", gate.Command(translate.DiffPolicies, s.DiffPolicies, translate.PolicyDiff)),
		row(a, "ListPermitted", gate.Command(translate.ListPermitted, s.ListPermitted, translate.PermittedList)),
	}
}

func (a *API) deleteGroup(ctx context.Context, call kms.Call, q *pb.DeleteGroupRequest) (*pb.DeleteGroupResponse, error) {
	ref, err := translate.DeleteGroup(q)
	if err != nil {
		return nil, err
	}
	return &pb.DeleteGroupResponse{}, a.service.DeleteGroup(ctx, call, ref)
}

func (a *API) deletePolicy(ctx context.Context, call kms.Call, q *pb.DeletePolicyRequest) (*pb.DeletePolicyResponse, error) {
	ref, err := translate.DeletePolicy(q)
	if err != nil {
		return nil, err
	}
	return &pb.DeletePolicyResponse{}, a.service.DeletePolicy(ctx, call, ref)
}

func (a *API) tokens() []gate.Method {
	s := a.service
	return []gate.Method{
		row(a, "CreateToken", gate.Command(translate.CreateToken, s.CreateToken, translate.NewToken)),
		row(a, "WhoAmI", a.whoAmI),
		row(a, "RenewToken", gate.Command(translate.RenewToken, s.RenewToken, translate.RenewedToken)),
		row(a, "RevokeTokens", gate.Command(translate.RevokeTokens, s.RevokeTokens, translate.RevokedTokens)),
		row(a, "ListRevocations", gate.Listing(translate.ListRevocations, s.ListRevocations, translate.Revocations)),
	}
}

func (a *API) whoAmI(ctx context.Context, call kms.Call, _ *pb.WhoAmIRequest) (*pb.WhoAmIResponse, error) {
	self, err := a.service.Self(ctx, call)
	if err != nil {
		return nil, err
	}
	return translate.WhoAmI(self), nil
}

func (a *API) audit() []gate.Method {
	s := a.service
	return []gate.Method{
		row(a, "ListEntries", a.listEntries),
		row(a, "GetCheckpoint", gate.Command(translate.GetCheckpoint, s.GetCheckpoint, translate.Checkpoint)),
		row(a, "ProveEntry", gate.Command(translate.ProveEntry, s.ProveEntry, translate.EntryProof)),
		row(a, "RotateAuditKey", gate.Command(translate.RotateAuditKey, s.RotateAuditKey, translate.AuditKey)),
	}
}

func (a *API) listEntries(ctx context.Context, call kms.Call, q *pb.ListEntriesRequest) (*pb.ListEntriesResponse, error) {
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

func (a *API) system() []gate.Method {
	return []gate.Method{row(a, "GetStatus", a.getStatus), row(a, "ListAlgorithms", a.listAlgorithms)}
}

func (a *API) getStatus(ctx context.Context, call kms.Call, _ *pb.GetStatusRequest) (*pb.Status, error) {
	status, err := a.service.GetStatus(ctx, call)
	if err != nil {
		return nil, err
	}
	return translate.Status(status, a.version), nil
}

// listAlgorithms answers from the table, and what the token can do of it, which is
// the same for everybody.
func (a *API) listAlgorithms(context.Context, kms.Call, *pb.ListAlgorithmsRequest) (*pb.ListAlgorithmsResponse, error) {
	return translate.Algorithms(a.service.HSMAlgorithms()), nil
}
