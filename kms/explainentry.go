package kms

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// question is one thing that an audit entry tells was decided.
type question struct {
	entry          *audit.Entry
	action         policy.Action
	namespace, key string
	context        map[string]string
	hidden         bool // the encryption context is not in the entry
	count          uint64
}

// questionsOf takes an entry apart: a use of two keys is two questions, a batch
// has some for each of its counts. An entry about which policies were not asked
// has none.
func questionsOf(e *audit.Entry) []question {
	if e.Phase == audit.PhaseIntent || e.Principal == "" {
		return nil
	}
	var all []question
	for _, row := range e.Batch {
		all = append(all, question{entry: e, action: asked(row.Action), namespace: row.Namespace, key: row.Key,
			hidden: len(row.ContextHashes) > 0, count: uint64(row.OK) + uint64(row.Failed)})
	}
	if len(e.Batch) > 0 || e.Decision != audit.Allow && e.Decision != audit.Deny {
		return all
	}
	all = append(all, question{entry: e, action: asked(e.Action), namespace: e.Namespace, key: e.Key,
		context: e.EncryptionContext, hidden: e.ContextHash != "", count: 1})
	if namespace, key, ok := strings.Cut(e.Details["destination"], "/"); ok && e.Action == string(actionReEncrypt) {
		all = append(all, question{entry: e, action: policy.Encrypt, namespace: namespace, key: key, hidden: true, count: 1})
	}
	return all
}

// asked is the action that policies were asked about.
func asked(logged string) policy.Action {
	if logged == string(actionReEncrypt) {
		return policy.Decrypt // and Encrypt, with the destination
	}
	return policy.Action(logged)
}

// explainEntry explains an entry by the policies of its time and by those of now.
func (s *Service) explainEntry(ctx context.Context, t *trace, sequence uint64, changes []PolicyChange) (ExplainedDecision, error) {
	entry, found, err := s.findEntry(ctx, sequence)
	if err != nil {
		return ExplainedDecision{}, err
	}
	if err := s.permitExplanation(ctx, t, entryNamespace(&entry, changes)); err != nil {
		return ExplainedDecision{}, err
	}
	if !found {
		return ExplainedDecision{}, notFound("ENTRY_NOT_FOUND", "the audit log has no entry %d; `keywright audit list` shows those there are", sequence)
	}
	questions := questionsOf(&entry)
	if len(questions) == 0 {
		return ExplainedDecision{}, precondition("NOT_DECIDED", "entry %d tells of nothing that policies decided; look for the entry of the request itself", sequence)
	}
	now, err := s.proposed(changes)
	if err != nil {
		return ExplainedDecision{}, err
	}
	then, caveats, err := s.policiesAt(ctx, entry.PolicyRevision)
	if err != nil {
		return ExplainedDecision{}, err
	}
	explained, err := s.explainQuestions(ctx, questions, then, now)
	explained.Caveats = append(caveats, explained.Caveats...)
	return explained, err
}

// entryNamespace is the namespace in which an entry may be explained, "" for all.
func entryNamespace(e *audit.Entry, changes []PolicyChange) string {
	var about []SupposedRequest
	for _, q := range questionsOf(e) {
		about = append(about, SupposedRequest{Namespace: q.namespace})
	}
	return explainedNamespace(about, changes)
}

func (s *Service) findEntry(ctx context.Context, sequence uint64) (entry audit.Entry, found bool, err error) {
	if sequence >= s.audit.Next() {
		return entry, false, nil
	}
	err = s.audit.Scan(ctx, audit.Filter{From: sequence, To: sequence + 1}, func(e audit.Entry) error {
		entry, found = e, true
		return nil
	})
	return entry, found, readAuditError(err)
}

// explainQuestions explains the question that was denied, or else the first.
func (s *Service) explainQuestions(ctx context.Context, questions []question, then, now *policy.Set) (ExplainedDecision, error) {
	var chosen *rebuilt
	for _, q := range questions {
		r, err := s.rebuild(ctx, q)
		if err != nil {
			return ExplainedDecision{}, err
		}
		if denied := then.Decide(&r.request).Verdict == policy.Deny; denied || chosen == nil {
			chosen = &r
			if denied {
				break
			}
		}
	}
	explained := ExplainedDecision{Explanation: then.Explain(&chosen.request), Caveats: chosen.caveats(then)}
	if len(questions) > 1 {
		explained.Caveats = append(explained.Caveats, fmt.Sprintf("the entry tells of %d decisions; this is about %s on %s",
			len(questions), chosen.request.Action, strings.Trim(chosen.namespace+"/"+chosen.key, "/")))
	}
	logged := chosen.entry.Decision
	if got := explained.Explanation.Verdict.String(); logged != "" && logged != got && len(questions) == 1 {
		explained.Caveats = append(explained.Caveats, "the log says "+logged+": "+chosen.difference())
	}
	if now != then {
		later := now.Explain(&chosen.request)
		explained.Now = &later
	}
	return explained, nil
}

// rebuilt is a question as the request that it was, as far as that is known.
type rebuilt struct {
	question
	request policy.Request
	now     resourceNow
}

// loggedCaller is who made the request of an entry, as far as the log tells: not what
// bounded a token.
func loggedCaller(e *audit.Entry) (*policy.Caller, error) {
	caller, err := callerNamed(e.Principal, e.Method, e.Source)
	if err == nil {
		caller.Groups = e.Groups
	}
	return caller, err
}

// rebuild fails only where that is the server's fault: what an entry lacks makes
// a request that is denied.
func (s *Service) rebuild(ctx context.Context, q question) (rebuilt, error) {
	caller, err := loggedCaller(q.entry)
	if err != nil {
		return rebuilt{}, precondition("NOT_DECIDED", "entry %d is of no caller that policies decide about", q.entry.Sequence)
	}
	now, err := s.resourceNow(ctx, q.namespace, q.key)
	if err != nil && CodeOf(err) != InvalidArgument { // a name that cannot be was asked for all the same
		return rebuilt{}, err
	}
	return rebuilt{q, policy.Request{Caller: caller, Action: q.action, Resource: now.resource, EncryptionContext: q.context, Time: q.entry.Time}, now}, nil
}

// difference says why an entry was decided otherwise than it is explained.
func (r *rebuilt) difference() string {
	if whose := r.entry.Details[detailBound]; whose != "" {
		return "the token was bounded by the narrowing or the rights of " + whose
	}
	return "something that the log does not tell made the difference"
}

// caveats says what of the request could not be known, where the policies look
// at it.
func (r *rebuilt) caveats(set *policy.Set) []string {
	var all []string
	context, attributes := set.LooksAt(&r.request)
	if context && r.hidden {
		all = append(all, "the encryption context is not in the log, only its hash; it counts as empty here")
	}
	what := "the namespace"
	if r.key != "" {
		what = "the key"
	}
	switch at := r.entry.Time; {
	case !attributes:
	case r.action == policy.CreateKey || r.action == policy.CreateNamespace:
		all = append(all, what+" to be created is described as the one that exists now, if there is one")
	case r.now.missing:
		all = append(all, what+" does not exist now; it counts as one without labels")
	case r.now.created.After(at):
		all = append(all, what+" of that name is a newer one; its attributes and labels are used here")
	case r.now.updated.After(at):
		all = append(all, what+" was changed since; its labels of now are used here")
	}
	return all
}

// pastChange is the latest known change of a policy or group.
type pastChange struct {
	revision uint64
	deleted  bool
	text     string // of a policy, or a group's members
}

// policiesAt compiles the policies of a revision. Other than that in force, they
// are rebuilt from the audit log, which has each change.
func (s *Service) policiesAt(ctx context.Context, revision uint64) (*policy.Set, []string, error) {
	if set := s.policies.set.Load(); set.Revision() == revision {
		return set, nil, nil
	}
	h := history{until: revision, latest: map[string]pastChange{}}
	for _, action := range []string{EventInitializeBegin, string(policy.PutPolicy), string(policy.DeletePolicy),
		string(policy.PutGroup), string(policy.DeleteGroup), string(policy.DeleteNamespace)} {
		if err := s.audit.Scan(ctx, audit.Filter{Action: action}, h.note); err != nil {
			return nil, nil, readAuditError(err)
		}
	}
	set, err := h.source().compile(revision, s.policies.set.Load())
	if err != nil {
		return nil, nil, precondition("POLICIES_UNKNOWN", "the policies of revision %d cannot be rebuilt from the audit log: %v", revision, err)
	}
	var caveats []string
	if known := h.changes + h.initial; known < revision {
		caveats = append(caveats, fmt.Sprintf("this server's audit log has %d of the %d changes that led to the policies of that time", known, revision))
	}
	return set, caveats, nil
}

// history gathers the changes of policies and groups up to a revision, in
// whatever order they come.
type history struct {
	until   uint64
	initial uint64 // 1 once the first policies are known
	changes uint64
	latest  map[string]pastChange // by path
}

func (h *history) note(e audit.Entry) error {
	switch {
	case e.Action == EventInitializeBegin:
		h.begin(e.Details)
	case e.Phase == audit.PhaseOutcome && e.Outcome == string(OK):
		h.change(&e)
	}
	return nil
}

// begin notes the policies of revision 1. An earlier attempt at an installation
// may have left others.
func (h *history) begin(details map[string]string) {
	maps.DeleteFunc(h.latest, func(_ string, past pastChange) bool { return past.revision == 1 })
	h.initial = 1
	for path, text := range details {
		if strings.HasPrefix(path, prefixPolicy) {
			h.latest[path] = pastChange{revision: 1, text: text}
		}
	}
}

// change notes a change; other entries of these actions have no revision.
func (h *history) change(e *audit.Entry) {
	revision, err := strconv.ParseUint(e.Details["revision"], 10, 64)
	if err != nil || revision > h.until {
		return
	}
	h.changes++
	switch change := (pastChange{revision: revision}); policy.Action(e.Action) {
	case policy.PutPolicy:
		change.text = e.Details["text"]
		h.at(pathPolicy(e.Details["namespace"], e.Details["policy"]), change)
	case policy.PutGroup:
		change.text = e.Details["members"]
		h.at(pathGroup(e.Details["group"]), change)
	default: // one of those that only remove
		change.deleted = true
		for path, digest := range e.Records {
			if decidesPolicy(path) && digest == "" {
				h.at(path, change)
			}
		}
	}
}

func (h *history) at(path string, change pastChange) {
	if h.latest[path].revision < change.revision {
		h.latest[path] = change
	}
}

func (h *history) source() policySource {
	source := policySource{map[string]policy.Policy{}, map[string]policy.Group{}}
	for path, past := range h.latest {
		owner, name, _ := strings.Cut(strings.TrimPrefix(path, prefixPolicy), "/")
		switch {
		case past.deleted:
		case strings.HasPrefix(path, prefixGroup):
			source.groups[path] = policy.Group{Name: strings.TrimPrefix(path, prefixGroup), Members: lines(past.text)}
		default:
			source.policies[path] = policy.Policy{Namespace: strings.TrimPrefix(owner, "@"), Name: name, Text: past.text}
		}
	}
	return source
}

// lines takes apart what was joined with newlines.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
