package translate

import (
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// CreateToken reads a CreateTokenRequest.
func CreateToken(q *pb.CreateTokenRequest) (kms.CreateTokenRequest, error) {
	request := kms.CreateTokenRequest{Principal: q.Principal, Groups: q.Groups}
	ttl, err := optionalSpan("ttl", q.Ttl)
	if err != nil || ttl == nil {
		return request, err
	}
	if *ttl <= 0 { // zero is the core's word for "not given"
		return request, invalid("ttl", "ttl is not positive; give 60s to 86400s, or leave it out for an hour")
	}
	request.TTL = *ttl
	return request, nil
}

// NewToken writes a CreateTokenResponse.
func NewToken(t kms.NewToken) *pb.CreateTokenResponse {
	return &pb.CreateTokenResponse{Token: t.Text, Id: t.ID, ExpireTime: timestamp(t.Expires)}
}

// WhoAmI writes a WhoAmIResponse.
func WhoAmI(c *policy.Caller) *pb.WhoAmIResponse {
	return &pb.WhoAmIResponse{Principal: c.Principal(), Method: c.Method, Groups: c.Groups,
		TokenId: c.TokenID, ExpireTime: timestamp(c.Expires)}
}
