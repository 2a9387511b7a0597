package translate

import (
	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// CreateNamespace reads a CreateNamespaceRequest.
func CreateNamespace(q *pb.CreateNamespaceRequest) (kms.CreateNamespaceRequest, error) {
	return kms.CreateNamespaceRequest{Namespace: q.Namespace, Labels: q.Labels, Idempotency: q.IdempotencyKey}, nil
}

// GetNamespace reads a GetNamespaceRequest.
func GetNamespace(q *pb.GetNamespaceRequest) (string, error) { return q.Namespace, nil }

// ListNamespaces reads a ListNamespacesRequest.
func ListNamespaces(q *pb.ListNamespacesRequest) (kms.ListRequest, error) {
	return kms.ListRequest{PageSize: int(q.PageSize), PageToken: q.PageToken}, nil
}

// UpdateNamespace reads an UpdateNamespaceRequest.
func UpdateNamespace(q *pb.UpdateNamespaceRequest) (kms.UpdateNamespaceRequest, error) {
	return kms.UpdateNamespaceRequest{Namespace: q.Namespace, Labels: labels(q.Labels), Idempotency: q.IdempotencyKey}, nil
}

// Namespace writes a Namespace.
func Namespace(n kms.Namespace) *pb.Namespace {
	return &pb.Namespace{Name: n.Name, Id: n.ID.String(), Labels: n.Labels,
		CreateTime: timestamp(n.Created), UpdateTime: timestamp(n.Updated), Generation: n.Generation}
}

// Namespaces writes a ListNamespacesResponse.
func Namespaces(namespaces []kms.Namespace, next string) *pb.ListNamespacesResponse {
	return &pb.ListNamespacesResponse{Namespaces: each(namespaces, Namespace), NextPageToken: next}
}
