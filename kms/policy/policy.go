package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// MaxPolicySize is the longest policy text accepted, in bytes.
const MaxPolicySize = 64 << 10

// ErrUnknownAction is returned by ParseAction for a name that is no action's.
var ErrUnknownAction = errors.New("unknown action")

// Resource is what an action is asked of: a key, with Key empty its namespace,
// with both empty the installation.
type Resource struct {
	Namespace string
	Key       string
	// Labels are visible to policies as tags of the resource.
	Labels map[string]string
	// Purpose, Algorithm and Protection are a key's, in their canonical text.
	Purpose    string
	Algorithm  string
	Protection string
	// Exportable tells a key whose material can be taken out, wrapped.
	Exportable bool
	// Revision changes whenever anything above does; 0 means that a decision
	// about this resource must not be remembered.
	Revision uint64
}

// Request is one question: may Caller do Action to Resource, now, with this
// encryption context. Decide only reads it.
type Request struct {
	Caller            *Caller
	Action            Action
	Resource          *Resource
	EncryptionContext map[string]string
	Time              time.Time
}

// Verdict is the outcome of a decision. Its zero value denies.
type Verdict int

// The verdicts. NeedsApproval is reserved: no policy yields it yet.
const (
	Deny Verdict = iota
	Allow
	NeedsApproval
)

// String returns the verdict as written in the audit log.
func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case NeedsApproval:
		return "needs approval"
	default:
		return "deny"
	}
}

// Decision is the answer to a Request. Its slices are shared between callers
// and must not be modified.
type Decision struct {
	Verdict Verdict
	// Policies are the ids of the policies that determined the verdict, sorted;
	// empty when none applied.
	Policies []string
	// Erred are the ids of the policies that applied but could not be
	// evaluated, sorted.
	Erred []string
	// Bound is whose bounds denied, as Cedar text: an ancestor's, or the caller's
	// own where its token is narrowed. It is "" where policies denied to the caller.
	Bound string
	// Revision is the revision of the Set that decided.
	Revision uint64
	// Reason says in a few words why, for the audit log and explanations. It
	// names policies: show it only to whom they are no secret.
	Reason string
}

// Policy is one stored policy: one or more Cedar statements under a name.
type Policy struct {
	// Name is unique within its owner.
	Name string
	// Namespace owns the policy and confines it; "" is the installation.
	Namespace string
	Text      string
}

// ID returns the name by which decisions cite the policy: its name, with its
// namespace in front when it has one, as in `payments/app`.
func (p Policy) ID() string {
	if p.Namespace == "" {
		return p.Name
	}
	return p.Namespace + "/" + p.Name
}

// InvalidPolicy says what is wrong with a policy, where, and what to do.
type InvalidPolicy struct {
	// Name is the policy's id.
	Name string
	// Line and Column count from 1, Column in characters; 0 when the problem is
	// not in the text.
	Line, Column int
	Problem      string
	Advice       string
}

// Error puts name, place, problem and advice into one line.
func (e *InvalidPolicy) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy %q", e.Name)
	if e.Line > 0 {
		fmt.Fprintf(&b, ", line %d, column %d", e.Line, e.Column)
	}
	fmt.Fprintf(&b, ": %s", e.Problem)
	if e.Advice != "" {
		fmt.Fprintf(&b, "; %s", e.Advice)
	}
	return b.String()
}
