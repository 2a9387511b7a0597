package translate

import (
	"cmp"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// CreateNamespace reads a CreateNamespaceRequest.
func CreateNamespace(q *pb.CreateNamespaceRequest) (kms.CreateNamespaceRequest, error) {
	return kms.CreateNamespaceRequest{Namespace: q.Namespace, Labels: q.Labels, Quotas: quotas(q.Quotas), Token: q.Token,
		PlaintextExport: q.PlaintextExport, Idempotency: q.IdempotencyKey}, nil
}

// quotas reads an absent field as no bounds.
func quotas(q *pb.Quotas) kms.Quotas {
	return kms.Quotas{MaxKeys: q.GetMaxKeys(), RequestsPerSecond: q.GetRequestsPerSecond()}
}

// GetNamespace reads a GetNamespaceRequest.
func GetNamespace(q *pb.GetNamespaceRequest) (string, error) { return q.Namespace, nil }

// ListNamespaces reads a ListNamespacesRequest.
func ListNamespaces(q *pb.ListNamespacesRequest) (kms.ListRequest, error) {
	return kms.ListRequest{PageSize: int(q.PageSize), PageToken: q.PageToken}, nil
}

// UpdateNamespace reads an UpdateNamespaceRequest.
func UpdateNamespace(q *pb.UpdateNamespaceRequest) (kms.UpdateNamespaceRequest, error) {
	update := kms.UpdateNamespaceRequest{Namespace: q.Namespace, Labels: labels(q.Labels), Idempotency: q.IdempotencyKey}
	if q.Quotas != nil {
		bounds := quotas(q.Quotas)
		update.Quotas = &bounds
	}
	return update, nil
}

// DeleteNamespace reads a DeleteNamespaceRequest.
func DeleteNamespace(q *pb.DeleteNamespaceRequest) (kms.DeleteNamespaceRequest, error) {
	delay, err := optionalSpan("delay", q.Delay)
	return kms.DeleteNamespaceRequest{Namespace: q.Namespace, Delay: delay, Idempotency: q.IdempotencyKey}, err
}

// RestoreNamespace reads a RestoreNamespaceRequest.
func RestoreNamespace(q *pb.RestoreNamespaceRequest) (kms.NamespaceRef, error) {
	return kms.NamespaceRef{Namespace: q.Namespace, Idempotency: q.IdempotencyKey}, nil
}

// RekeyNamespace reads a RekeyNamespaceRequest.
func RekeyNamespace(q *pb.RekeyNamespaceRequest) (kms.NamespaceRef, error) {
	return kms.NamespaceRef{Namespace: q.Namespace, Idempotency: q.IdempotencyKey}, nil
}

// ConfirmErasure reads a ConfirmErasureRequest.
func ConfirmErasure(q *pb.ConfirmErasureRequest) (kms.ConfirmErasureRequest, error) {
	return kms.ConfirmErasureRequest{Namespace: q.Namespace, Generation: q.Generation, Idempotency: q.IdempotencyKey}, nil
}

// Namespace writes a Namespace.
func Namespace(n kms.Namespace) *pb.Namespace {
	out := &pb.Namespace{Name: n.Name, Id: n.ID.String(), Labels: n.Labels,
		CreateTime: timestamp(n.Created), UpdateTime: timestamp(n.Updated), Generation: n.Generation,
		State:       pb.NamespaceState(pb.NamespaceState_value["NAMESPACE_"+string(n.State)]),
		DestroyTime: timestamp(n.DestroyTime), Token: cmp.Or(n.Token, kms.DefaultToken), PlaintextExport: n.PlaintextExport}
	if n.Quotas != (kms.Quotas{}) {
		out.Quotas = &pb.Quotas{MaxKeys: n.Quotas.MaxKeys, RequestsPerSecond: n.Quotas.RequestsPerSecond}
	}
	if r := n.Rekey; !r.Started.IsZero() {
		out.Rekey = &pb.Rekey{FromGeneration: r.From, StartTime: timestamp(r.Started), EndTime: timestamp(r.Ended), Records: r.Records}
	}
	for _, e := range n.Erasures {
		if e.Through > out.ErasedGeneration {
			out.ErasedGeneration, out.EraseTime = e.Through, timestamp(e.Time)
		}
	}
	return out
}

// Namespaces writes a ListNamespacesResponse.
func Namespaces(namespaces []kms.Namespace, next string) *pb.ListNamespacesResponse {
	return &pb.ListNamespacesResponse{Namespaces: each(namespaces, Namespace), NextPageToken: next}
}
