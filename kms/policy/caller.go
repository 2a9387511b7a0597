package policy

import (
	"net/netip"
	"time"

	"github.com/cedar-policy/cedar-go/types"
)

// PrincipalType is the Cedar entity type of a principal.
type PrincipalType string

// The types of principals.
const (
	Workload PrincipalType = "Workload" // a program, known by a SPIFFE URI or a platform's identity
	User     PrincipalType = "User"     // a person, or what carries a certificate with a subject name only
	Token    PrincipalType = "Token"    // the bearer of a token issued by this installation
)

// Caller is who asks, as authenticated by a transport. Transports build it,
// nobody changes it afterwards, so it may be shared between goroutines.
type Caller struct {
	// Type and ID name the principal. For mTLS, ID is `<bundle>:<SPIFFE URI>`
	// (Workload) or `<bundle>:<subject DN, RFC 2253>` (User); for a token it is
	// the token's principal name.
	Type PrincipalType
	ID   string
	// Groups are the groups the principal belongs to, by name.
	Groups []string
	// Method is how it authenticated: "mtls", "token", "unix" or "internal".
	Method string
	// TrustDomain names the CA bundle or issuer that vouched for it, "" if none.
	TrustDomain string
	// TokenID is the id of the token presented, "" if none.
	TokenID string
	// Expires is when the credentials end; zero means that they do not.
	Expires time.Time
	// Source is the address the request came from; the zero Addr if there is none.
	Source netip.Addr

	// Actions and Resources narrow what a token is good for, whatever its
	// principal may do; CheckNarrowing says what they hold. Without entries
	// nothing is narrowed.
	Actions, Resources []string
	// Parent is who made this token with a token of his own, nil if nobody did. A
	// caller may do only what each of its ancestors may; MaxAncestors bounds them.
	Parent *Caller
	// Token is what else is known of the token presented, for whoever makes,
	// renews or revokes tokens; no decision looks at it. Ancestors have it too.
	Token TokenFacts
}

// TokenFacts is what a token says of itself, beside whom it speaks for.
type TokenFacts struct {
	// Issued is when it was made, End when it ends for good: Expires can be
	// earlier where it is renewable, or an ancestor is. Ancestors have no End.
	Issued, End time.Time
	// Renewable tells a lease, Once a token that works for one call.
	Renewable, Once bool
	// Origin stands for the principal that made the first token of the chain.
	Origin [16]byte
}

// Principal returns the principal as Cedar text, such as Token::"app".
func (c *Caller) Principal() string { return c.uid().String() }

func (c *Caller) uid() types.EntityUID {
	return types.NewEntityUID(types.EntityType(c.Type), types.String(c.ID))
}

// expired reports whether the credentials have ended at the given time.
func (c *Caller) expired(now time.Time) bool {
	return !c.Expires.IsZero() && !now.Before(c.Expires)
}
