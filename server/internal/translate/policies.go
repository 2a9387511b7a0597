package translate

import (
	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// PutPolicy reads a PutPolicyRequest.
func PutPolicy(q *pb.PutPolicyRequest) (kms.PutPolicyRequest, error) {
	return kms.PutPolicyRequest{Namespace: q.Namespace, Name: q.Name, Text: q.Text, ConfirmLockout: q.ConfirmLockout, Idempotency: q.IdempotencyKey}, nil
}

// GetPolicy reads a GetPolicyRequest.
func GetPolicy(q *pb.GetPolicyRequest) (kms.PolicyRef, error) {
	return kms.PolicyRef{Namespace: q.Namespace, Name: q.Name}, nil
}

// ListPolicies reads a ListPoliciesRequest.
func ListPolicies(q *pb.ListPoliciesRequest) (kms.ListRequest, error) {
	return kms.ListRequest{Namespace: q.Namespace, PageSize: int(q.PageSize), PageToken: q.PageToken}, nil
}

// DeletePolicy reads a DeletePolicyRequest.
func DeletePolicy(q *pb.DeletePolicyRequest) (kms.PolicyRef, error) {
	return kms.PolicyRef{Namespace: q.Namespace, Name: q.Name, ConfirmLockout: q.ConfirmLockout, Idempotency: q.IdempotencyKey}, nil
}

// Policy writes a Policy.
func Policy(p kms.Policy) *pb.Policy {
	return &pb.Policy{Name: p.Name, Namespace: p.Namespace, Text: p.Text,
		CreateTime: timestamp(p.Created), UpdateTime: timestamp(p.Updated), Revision: p.Revision}
}

// Policies writes a ListPoliciesResponse.
func Policies(policies []kms.Policy, next string) *pb.ListPoliciesResponse {
	return &pb.ListPoliciesResponse{Policies: each(policies, Policy), NextPageToken: next}
}

// PutGroup reads a PutGroupRequest.
func PutGroup(q *pb.PutGroupRequest) (kms.PutGroupRequest, error) {
	return kms.PutGroupRequest{Name: q.Name, Members: q.Members, ConfirmLockout: q.ConfirmLockout, Idempotency: q.IdempotencyKey}, nil
}

// GetGroup reads a GetGroupRequest.
func GetGroup(q *pb.GetGroupRequest) (kms.GroupRef, error) { return kms.GroupRef{Name: q.Name}, nil }

// ListGroups reads a ListGroupsRequest.
func ListGroups(q *pb.ListGroupsRequest) (kms.ListRequest, error) {
	return kms.ListRequest{PageSize: int(q.PageSize), PageToken: q.PageToken}, nil
}

// DeleteGroup reads a DeleteGroupRequest.
func DeleteGroup(q *pb.DeleteGroupRequest) (kms.GroupRef, error) {
	return kms.GroupRef{Name: q.Name, ConfirmLockout: q.ConfirmLockout, Idempotency: q.IdempotencyKey}, nil
}

// Group writes a Group.
func Group(g kms.Group) *pb.Group {
	return &pb.Group{Name: g.Name, Members: g.Members, CreateTime: timestamp(g.Created), UpdateTime: timestamp(g.Updated), Revision: g.Revision}
}

// Groups writes a ListGroupsResponse.
func Groups(groups []kms.Group, next string) *pb.ListGroupsResponse {
	return &pb.ListGroupsResponse{Groups: each(groups, Group), NextPageToken: next}
}
