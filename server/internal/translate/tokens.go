package translate

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// CreateToken reads a CreateTokenRequest.
func CreateToken(q *pb.CreateTokenRequest) (kms.CreateTokenRequest, error) {
	request := kms.CreateTokenRequest{Principal: q.Principal, Groups: q.Groups, Actions: q.Actions, Resources: q.Resources, Idempotency: q.IdempotencyKey}
	var err error
	if request.TTL, err = positive("ttl", q.Ttl); err != nil {
		return request, err
	}
	request.RenewableFor, err = positive("renewable_for", q.RenewableFor)
	return request, err
}

// positive returns 0, the core's word for "not given", for an absent field alone.
func positive(field string, d *durationpb.Duration) (time.Duration, error) {
	value, err := optionalSpan(field, d)
	if err != nil || value == nil {
		return 0, err
	}
	if *value <= 0 {
		return 0, invalid(field, field+" is not positive; give 60s or more, or leave it out")
	}
	return *value, nil
}

// NewToken writes a CreateTokenResponse.
func NewToken(t kms.NewToken) *pb.CreateTokenResponse {
	return &pb.CreateTokenResponse{Token: t.Text, Id: t.ID, ExpireTime: timestamp(t.Expires), RenewableUntil: timestamp(t.RenewableUntil)}
}

// WhoAmI writes a WhoAmIResponse.
func WhoAmI(c *policy.Caller) *pb.WhoAmIResponse {
	who := &pb.WhoAmIResponse{Principal: c.Principal(), Method: c.Method, Groups: c.Groups,
		TokenId: c.TokenID, ExpireTime: timestamp(c.Expires), Actions: c.Actions, Resources: c.Resources}
	if c.Token.Renewable {
		who.RenewableUntil = timestamp(c.Token.End)
	}
	for ancestor := c.Parent; ancestor != nil; ancestor = ancestor.Parent {
		who.Ancestors = append(who.Ancestors, ancestor.TokenID)
	}
	return who
}

// RenewToken reads a RenewTokenRequest.
func RenewToken(q *pb.RenewTokenRequest) (kms.RenewTokenRequest, error) {
	ttl, err := positive("ttl", q.Ttl)
	return kms.RenewTokenRequest{TTL: ttl}, err
}

// RenewedToken writes a RenewTokenResponse.
func RenewedToken(r kms.RenewedToken) *pb.RenewTokenResponse {
	return &pb.RenewTokenResponse{ExpireTime: timestamp(r.Expires), RenewableUntil: timestamp(r.RenewableUntil)}
}

// RevokeTokens reads a RevokeTokensRequest.
func RevokeTokens(q *pb.RevokeTokensRequest) (kms.RevokeTokensRequest, error) {
	before, err := moment("before", q.Before)
	return kms.RevokeTokensRequest{ID: q.Id, Principal: q.Principal, Before: before, Idempotency: q.IdempotencyKey}, err
}

// RevokedTokens writes a RevokeTokensResponse.
func RevokedTokens(r kms.Revocation) *pb.RevokeTokensResponse {
	return &pb.RevokeTokensResponse{Revocation: Revocation(r)}
}

// Revocation writes a Revocation.
func Revocation(r kms.Revocation) *pb.Revocation {
	return &pb.Revocation{Id: r.ID, Principal: r.Principal, Before: timestamp(r.Before), CreateTime: timestamp(r.Created), ExpireTime: timestamp(r.Expires)}
}

// ListRevocations reads a ListRevocationsRequest.
func ListRevocations(q *pb.ListRevocationsRequest) (kms.ListRequest, error) {
	return kms.ListRequest{PageSize: int(q.PageSize), PageToken: q.PageToken}, nil
}

// Revocations writes a ListRevocationsResponse.
func Revocations(revocations []kms.Revocation, next string) *pb.ListRevocationsResponse {
	return &pb.ListRevocationsResponse{Revocations: each(revocations, Revocation), NextPageToken: next}
}
