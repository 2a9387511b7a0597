package kms

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// internalPrincipal is who acts in the audit log when the server itself does.
const internalPrincipal = `System::"keywright"`

// maxAttempts bounds how often a change is planned anew after a write conflict.
const maxAttempts = 5

// trace follows one operation through authorize → act → audit.
type trace struct {
	call      Call
	start     time.Time
	action    policy.Action
	algorithm string
	entry     audit.Entry
	ask       policy.Request
	known     knownCaller
	// destination is what a ReEncrypt encrypts with, where the entry names the source.
	destination *audit.BatchCount
	durable     bool              // the line is synced before the answer
	records     map[string]string // what the change wrote, if it was made
	intent      *openIntent
	imported    *importedMaterial
	object      *newObject // the key that was made on the token for the change, if it needs one
}

// knownCaller is the text of the caller that a trace last served: transports
// hand in the same Caller again and again.
type knownCaller struct {
	caller            *policy.Caller
	principal, source string
}

func (k *knownCaller) note(c *policy.Caller) {
	if k.caller == c {
		return
	}
	*k = knownCaller{caller: c, principal: c.Principal()}
	if c.Source.IsValid() {
		k.source = c.Source.String()
	}
}

var traces = sync.Pool{New: func() any { return new(trace) }}

func (s *Service) begin(call Call, action policy.Action) *trace {
	return beginAt(call, action, s.now())
}

func beginAt(call Call, action policy.Action, start time.Time) *trace {
	t := traces.Get().(*trace)
	*t = trace{call: call, start: start, action: action, known: t.known}
	t.entry.Time = t.start
	t.entry.RequestID = call.RequestID
	t.entry.Action = string(action)
	if c := call.Caller; c != nil {
		t.known.note(c)
		t.entry.Principal, t.entry.Source = t.known.principal, t.known.source
		t.entry.Method, t.entry.TokenID, t.entry.Groups = c.Method, c.TokenID, c.Groups
	}
	return t
}

// perform runs one use or read of something: act authorises and acts, then its
// outcome is written to the audit log; only then the answer is given.
func perform[Q, A any](ctx context.Context, s *Service, call Call, action policy.Action, q Q,
	act func(*Service, context.Context, *trace, Q) (A, error)) (A, error) {
	t := s.begin(call, action)
	answer, err := act(s, ctx, t, q)
	if err = s.conclude(t, err); err != nil {
		var none A
		return none, err
	}
	return answer, nil
}

// conclude writes the audit line and tells the observer. An operation whose line
// cannot be written fails.
func (s *Service) conclude(t *trace, err error) error {
	durability := s.note(t, err)
	_, auditErr := s.audit.Append(&t.entry, durability)
	return s.noted(t, err, auditErr)
}

// note completes the audit entry by the outcome, and says how durable its line is to be.
func (s *Service) note(t *trace, err error) audit.Durability {
	t.entry.Outcome, t.entry.Reason, t.entry.Latency = string(CodeOf(err)), reasonOf(err), s.now().Sub(t.start)
	if err == nil {
		t.entry.Records = t.records
	}
	if s.config.HashContexts && len(t.entry.EncryptionContext) > 0 {
		t.entry.ContextHash, t.entry.EncryptionContext = s.contextHash(t.entry.EncryptionContext), nil
	}
	if t.durable || t.entry.Phase == audit.PhaseOutcome {
		return audit.Sync
	}
	return audit.Hot
}

// noted ends a trace whose line was written, or could not be, and returns what the
// operation's outcome is to its caller.
func (s *Service) noted(t *trace, err, auditErr error) error {
	defer traces.Put(t)
	if auditErr != nil {
		err = auditError(auditErr)
	} else if t.intent != nil {
		s.checkpoints.soon()
		if t.entry.Reason != reasonOutcomeUnknown {
			s.intents.end(t.intent, true)
		}
	}
	s.config.Observer.Operation(t.action, t.algorithm, CodeOf(err), t.entry.Latency)
	return err
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func auditError(err error) error {
	if errors.Is(err, audit.ErrUnsigned) {
		return &Error{Code: Unavailable, Reason: "AUDIT_UNSIGNED", Cause: err,
			Message: "too many entries of the audit log wait for their signature, so nothing is answered; the server's HSM may be away"}
	}
	return &Error{Code: Unavailable, Reason: "AUDIT_UNAVAILABLE", Cause: err,
		Message: "the audit log cannot be written, so nothing is answered; the server's disk may be full"}
}

// authenticated reports a caller that is not known, or not any more.
func authenticated(caller *policy.Caller, at time.Time) error {
	if caller == nil {
		return &Error{Code: Unauthenticated, Reason: "NO_CALLER", Message: "the call is not authenticated"}
	}
	if !caller.Expires.IsZero() && !at.Before(caller.Expires) {
		return &Error{Code: Unauthenticated, Reason: "CREDENTIALS_EXPIRED", Message: "the certificate or token has expired; get a new one"}
	}
	return nil
}

// authorize decides, and notes the decision for the audit log.
func (s *Service) authorize(t *trace, action policy.Action, resource *policy.Resource, encryptionContext map[string]string) error {
	caller := t.call.Caller
	if err := authenticated(caller, t.start); err != nil {
		return err
	}
	if err := s.withinCallerQuota(t); err != nil {
		return err
	}
	t.ask = policy.Request{Caller: caller, Action: action, Resource: resource, EncryptionContext: encryptionContext, Time: t.start}
	d := s.policies.set.Load().Decide(&t.ask)
	t.entry.Decision, t.entry.Policies, t.entry.PolicyRevision = audit.Allow, d.Policies, d.Revision
	switch d.Verdict {
	case policy.Allow:
		if sealed := s.seals.Load(); sealed != nil {
			if err := s.refuseSealed(sealed, action, resource.Namespace); err != nil {
				return err
			}
		}
		if err := s.withinNamespaceQuota(t, action, resource.Namespace); err != nil {
			return err
		}
		return s.spendIfOnce(t)
	case policy.NeedsApproval:
		t.entry.Decision = d.Verdict.String()
		return precondition("NEEDS_APPROVAL", "%s needs an approval that has not been given", action)
	}
	return t.denied(action, d)
}

// denied words a refusal. Where it is what bounds the caller's token that refuses,
// the log says whose.
func (t *trace) denied(action policy.Action, d policy.Decision) error {
	t.durable, t.entry.Decision = true, audit.Deny
	remedy := "an administrator can permit it with a policy"
	if d.Bound != "" {
		t.entry.Details = map[string]string{detailBound: d.Bound}
		remedy = "the token is bounded by how it was made, as whoami shows; use another"
	}
	return &Error{Code: PermissionDenied, Reason: "POLICY_DENIED", Message: fmt.Sprintf("%s may not %s here; %s", t.entry.Principal, action, remedy)}
}

// detailBound names who bounded the token of a request that was denied.
const detailBound = "bound"

// permit is authorize for something that was looked up: what is wrong with its
// name is said to anyone, that it is missing only to who may do this.
func (s *Service) permit(t *trace, action policy.Action, resource *policy.Resource, encryptionContext map[string]string, missing error) error {
	if CodeOf(missing) == InvalidArgument {
		return missing
	}
	if err := s.authorize(t, action, resource, encryptionContext); err != nil {
		return err
	}
	return missing
}

// permitChange is permit for a change. To dispose of its own token a caller
// needs no policy.
func (s *Service) permitChange(t *trace, c change, resource *policy.Resource, missing error) error {
	if !c.own {
		return s.permit(t, c.action, resource, nil, missing)
	}
	t.entry.Decision = audit.Allow
	return authenticated(t.call.Caller, t.start)
}

// on notes what the operation is about, as the caller named it.
func (t *trace) on(namespace, key string) { t.entry.Namespace, t.entry.Key = namespace, key }

// change describes a mutation to mutate.
type change struct {
	action         policy.Action
	namespace, key string // as the caller named them
	idempotency    string
	request        any // what an idempotency key stands for
	check          error
	// own tells that the caller disposes of nothing but its own token.
	own bool
	// always has an idempotency key remembered where no record is changed, too.
	always bool
	// resource yields what is changed, for the decision; its error is given only
	// to who may do this.
	resource func(context.Context) (*policy.Resource, error)
	// prepare does, before the lock is taken, what takes its time; done ends it, well
	// or not. nil if there is nothing.
	prepare func(context.Context, *trace) (done func(), err error)
	// lock serialises with other changes of the same thing; nil if there is none.
	lock func() *sync.Mutex
	// forget drops what is in memory when the outcome of a commit is not known.
	forget func()
}

// mutate brackets a change: authorise, make the intent durable in the audit log,
// commit what plan puts into the transaction, write the outcome. plan may run
// again when it lost a race; it must not have effects of its own.
func mutate[A any](ctx context.Context, s *Service, call Call, c change, plan func(context.Context, *trace, *transaction) (A, error)) (A, error) {
	t := s.begin(call, c.action)
	t.on(c.namespace, c.key)
	answer, err := applyChange(ctx, s, t, c, plan)
	if err = s.conclude(t, err); err != nil {
		var none A
		return none, err
	}
	return answer, nil
}

func applyChange[A any](ctx context.Context, s *Service, t *trace, c change, plan func(context.Context, *trace, *transaction) (A, error)) (A, error) {
	var none A
	if err := errors.Join(c.check, checkIdempotency(c.idempotency)); err != nil {
		return none, firstError(err)
	}
	resource, missing := c.resource(ctx)
	if err := s.permitChange(t, c, resource, missing); err != nil {
		if CodeOf(err) == NotFound { // a deletion sent again finds nothing, but its first outcome is known
			if earlier, found, err := recall[A](ctx, s, t, c); found && err == nil {
				return earlier, nil
			}
		}
		return none, err
	}
	if c.prepare != nil {
		if earlier, found, err := recall[A](ctx, s, t, c); found || err != nil {
			return earlier, err
		}
		done, err := c.prepare(ctx, t)
		defer done()
		if err != nil {
			return none, err
		}
	}
	if c.lock != nil {
		lock := c.lock()
		lock.Lock()
		defer lock.Unlock()
	}
	return commitChange(ctx, s, t, c, plan)
}

func commitChange[A any](ctx context.Context, s *Service, t *trace, c change, plan func(context.Context, *trace, *transaction) (A, error)) (A, error) {
	var none A
	for range maxAttempts {
		if earlier, found, err := recall[A](ctx, s, t, c); found || err != nil {
			return earlier, err
		}
		tx := &transaction{}
		answer, err := plan(ctx, t, tx)
		if err != nil {
			return none, err
		}
		if err := s.remember(t, tx, c, answer); err != nil {
			return none, err
		}
		if err := s.auditIntent(t, tx); err != nil {
			return none, err
		}
		switch err := tx.commit(ctx, s); {
		case err == nil:
			return answer, nil
		case errors.Is(err, store.ErrConflict):
			continue
		case errors.Is(err, store.ErrUnknown) && c.forget != nil:
			c.forget()
			return none, storeError(err)
		default:
			return none, storeError(err)
		}
	}
	return none, storeError(store.ErrConflict)
}

// auditIntent writes the intent, once per change, turns the trace's own entry
// into its outcome, and has the transaction leave the intent's mark.
func (s *Service) auditIntent(t *trace, tx *transaction) error {
	t.entry.Details, t.records = tx.details, tx.records
	if tx.empty() {
		return nil
	}
	if t.intent == nil {
		if err := s.beginIntent(t); err != nil {
			return err
		}
	}
	tx.put(s.system, pathIntent(t.intent.sequence), 0, intentMark{Records: tx.records})
	return nil
}

func (s *Service) beginIntent(t *trace) error {
	intent := s.intents.begin(s.audit.Next())
	t.entry.Phase = audit.PhaseIntent
	sequence, err := s.audit.Append(&t.entry, audit.Sync)
	t.entry.Phase = audit.PhaseOperation
	if err != nil {
		s.intents.end(intent, false)
		return auditError(err)
	}
	intent.sequence, t.intent = sequence, intent
	t.entry.Phase, t.entry.Intent = audit.PhaseOutcome, sequence
	return nil
}

// idempotencyTTL is how long a mutation's outcome is remembered.
const idempotencyTTL = 24 * time.Hour

// idempotentRecord is the outcome of a mutation that had an idempotency key.
type idempotentRecord struct {
	Digest  []byte          `json:"digest"`
	Answer  json.RawMessage `json:"answer"`
	Expires time.Time       `json:"expires"`
}

func pathIdempotent(t *trace, key string) string {
	sum := sha256.Sum256([]byte(t.entry.Principal + "\x00" + key))
	return fmt.Sprintf("%s%x", prefixIdempotent, sum)
}

func (c change) digest() ([]byte, error) {
	b, err := json.Marshal(c.request)
	sum := sha256.Sum256(append([]byte(string(c.action)+"\x00"), b...))
	return sum[:], err
}

// recall returns the outcome of the same mutation sent before.
func recall[A any](ctx context.Context, s *Service, t *trace, c change) (answer A, found bool, err error) {
	if c.idempotency == "" {
		return answer, false, nil
	}
	record, err := read[idempotentRecord](ctx, s, s.system, pathIdempotent(t, c.idempotency))
	if errors.Is(err, store.ErrNotFound) {
		return answer, false, nil
	}
	if err != nil {
		return answer, false, err
	}
	digest, err := c.digest()
	if err != nil {
		return answer, false, err
	}
	if string(digest) != string(record.value.Digest) {
		return answer, false, &Error{Code: AlreadyExists, Reason: "IDEMPOTENCY_KEY_USED", Field: "idempotency_key",
			Message: "idempotency_key was used for another request; use a new one"}
	}
	t.entry.Details = map[string]string{"repeated": "true"}
	return answer, true, json.Unmarshal(record.value.Answer, &answer)
}

// remember adds the outcome to the transaction that makes it true.
func (s *Service) remember(t *trace, tx *transaction, c change, answer any) error {
	if c.idempotency == "" || tx.empty() && !c.always {
		return nil
	}
	digest, err := c.digest()
	if err != nil {
		return err
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	expires := s.now().Add(idempotencyTTL).UTC()
	path := pathIdempotent(t, c.idempotency)
	tx.put(s.system, path, 0, idempotentRecord{Digest: digest, Answer: b, Expires: expires})
	s.putDue(tx, expires, due{Kind: dueForget, Path: path})
	return nil
}

// firstError picks one of joined errors: a caller mends one field at a time.
func firstError(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return err
}
