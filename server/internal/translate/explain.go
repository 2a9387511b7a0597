package translate

import (
	"fmt"
	"strings"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// ExplainDecision reads an ExplainDecisionRequest.
func ExplainDecision(q *pb.ExplainDecisionRequest) (kms.ExplainRequest, error) {
	out := kms.ExplainRequest{Changes: each(q.Changes, policyChange)}
	switch subject := q.Subject.(type) {
	case *pb.ExplainDecisionRequest_Entry:
		out.Entry = &subject.Entry
	case *pb.ExplainDecisionRequest_Supposed:
		supposed, err := supposedRequest("supposed", subject.Supposed)
		if err != nil {
			return out, err
		}
		out.Supposed = &supposed
	}
	return out, nil
}

// TestPolicies reads a TestPoliciesRequest.
func TestPolicies(q *pb.TestPoliciesRequest) (kms.TestRequest, error) {
	out := kms.TestRequest{Changes: each(q.Changes, policyChange)}
	for i, r := range q.Requests {
		supposed, err := supposedRequest(fmt.Sprintf("requests[%d]", i), r)
		if err != nil {
			return out, err
		}
		out.Requests = append(out.Requests, supposed)
	}
	return out, nil
}

// DiffPolicies reads a DiffPoliciesRequest.
func DiffPolicies(q *pb.DiffPoliciesRequest) (kms.DiffRequest, error) {
	since, err := moment("since", q.Since)
	if err != nil {
		return kms.DiffRequest{}, err
	}
	until, err := moment("until", q.Until)
	return kms.DiffRequest{Changes: each(q.Changes, policyChange), Since: since, Until: until}, err
}

// ListPermitted reads a ListPermittedRequest.
func ListPermitted(q *pb.ListPermittedRequest) (kms.PermittedRequest, error) {
	return kms.PermittedRequest{Action: q.Action, Namespace: q.Namespace, Key: q.Key}, nil
}

func supposedRequest(field string, q *pb.SupposedRequest) (kms.SupposedRequest, error) {
	at, err := moment(field+".time", q.GetTime())
	return kms.SupposedRequest{Principal: q.GetPrincipal(), Groups: q.GetGroups(), Action: q.GetAction(), Namespace: q.GetNamespace(), Key: q.GetKey(),
		EncryptionContext: q.GetEncryptionContext(), Time: at, Source: q.GetSource(), Method: q.GetMethod()}, err
}

func policyChange(c *pb.PolicyChange) kms.PolicyChange {
	return kms.PolicyChange{Namespace: c.GetNamespace(), Name: c.GetName(), Text: c.GetText()}
}

// ExplainedDecision writes an ExplainDecisionResponse.
func ExplainedDecision(d kms.ExplainedDecision) *pb.ExplainDecisionResponse {
	out := &pb.ExplainDecisionResponse{Explanation: explanation(d.Explanation), Caveats: validTexts(d.Caveats)}
	if d.Now != nil {
		out.Now = explanation(*d.Now)
	}
	return out
}

// TestedPolicies writes a TestPoliciesResponse.
func TestedPolicies(explained []policy.Explanation) *pb.TestPoliciesResponse {
	return &pb.TestPoliciesResponse{Explanations: each(explained, explanation)}
}

// PolicyDiff writes a DiffPoliciesResponse.
func PolicyDiff(d kms.PolicyDiff) *pb.DiffPoliciesResponse {
	return &pb.DiffPoliciesResponse{Changed: each(d.Changed, changedDecision), Entries: d.Entries, Undecidable: d.Undecidable, Truncated: d.Truncated}
}

// PermittedList writes a ListPermittedResponse.
func PermittedList(l kms.PermittedList) *pb.ListPermittedResponse {
	return &pb.ListPermittedResponse{Permitted: each(l.Grants, permitted), Exceptions: each(l.Exceptions, considered)}
}

func explanation(e policy.Explanation) *pb.Explanation {
	return &pb.Explanation{Decision: e.Verdict.String(), Reason: valid(e.Reason), PolicyRevision: e.Revision,
		Policies: each(e.Statements, considered), Bounds: each(e.Bounds, explanation), Principal: valid(e.Principal)}
}

func considered(c policy.Considered) *pb.ConsideredPolicy {
	return &pb.ConsideredPolicy{Namespace: c.Namespace, Name: c.Name, Line: uint32(c.Line), Effect: c.Effect, Result: string(c.Result),
		FailedPart: c.FailedPart, FailedText: valid(c.FailedText), FailedLine: uint32(c.FailedLine), Detail: valid(c.Detail)}
}

func changedDecision(c kms.ChangedDecision) *pb.ChangedDecision {
	return &pb.ChangedDecision{Principal: valid(c.Principal), Action: string(c.Action), Namespace: valid(c.Namespace), Key: valid(c.Key),
		Before: c.Before.String(), After: c.After.String(), Count: c.Count, Entry: c.Entry, Reason: valid(c.Reason)}
}

func permitted(g policy.Grant) *pb.Permitted {
	return &pb.Permitted{Who: g.Who, Members: g.Members, Policy: considered(g.Statement), Conditions: validTexts(g.Conditions)}
}

// valid replaces what is no UTF-8, which a message cannot carry: requests that
// were audited may have held anything.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func validTexts(texts []string) []string { return each(texts, valid) }
