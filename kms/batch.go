package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// op binds an operation to its action in the audit log and how it is run.
type op struct {
	action policy.Action
	run    func(*Service, context.Context, *trace) (any, error)
}

// bound makes an op of a request and the method that serves it.
func bound[Q, A any](action policy.Action, q *Q, act func(*Service, context.Context, *trace, *Q) (A, error)) op {
	return op{action, func(s *Service, ctx context.Context, t *trace) (any, error) {
		if q == nil {
			return nil, errNoOperation()
		}
		answer, err := act(s, ctx, t, q)
		if err != nil {
			return nil, err
		}
		return &answer, nil
	}}
}

func (q *EncryptRequest) operation() op   { return bound(policy.Encrypt, q, (*Service).encrypt) }
func (q *DecryptRequest) operation() op   { return bound(policy.Decrypt, q, (*Service).decrypt) }
func (q *ReEncryptRequest) operation() op { return bound(actionReEncrypt, q, (*Service).reEncrypt) }
func (q *GenerateDataKeyRequest) operation() op {
	return bound(policy.GenerateDataKey, q, (*Service).generateDataKey)
}
func (q *GenerateDataKeyPairRequest) operation() op {
	return bound(policy.GenerateDataKeyPair, q, (*Service).generateDataKeyPair)
}
func (q *GenerateRandomRequest) operation() op {
	return bound(policy.GenerateRandom, q, (*Service).generateRandom)
}
func (q *SignRequest) operation() op      { return bound(policy.Sign, q, (*Service).sign) }
func (q *VerifyRequest) operation() op    { return bound(policy.Verify, q, (*Service).verify) }
func (q *MACRequest) operation() op       { return bound(policy.GenerateMac, q, (*Service).generateMAC) }
func (q *VerifyMACRequest) operation() op { return bound(policy.VerifyMac, q, (*Service).verifyMAC) }
func (q *AsymmetricDecryptRequest) operation() op {
	return bound(policy.AsymmetricDecrypt, q, (*Service).asymmetricDecrypt)
}
func (q *SharedSecretRequest) operation() op {
	return bound(policy.DeriveSharedSecret, q, (*Service).sharedSecret)
}
func (q *PublicKeyRequest) operation() op { return bound(policy.GetPublicKey, q, (*Service).publicKey) }

func errNoOperation() error { return invalid("operations", "has an entry without an operation") }

// Performed is an operation that was performed and that no audit record tells of yet:
// until Record there is no answer.
type Performed struct {
	trace  *trace // nil if there was nothing to perform
	answer any
	err    error
}

// Perform performs one operation of any kind. Record must be called for it, soon.
func (s *Service) Perform(ctx context.Context, call Call, operation Operation) Performed {
	if operation == nil {
		return Performed{err: errNoOperation()}
	}
	o := operation.operation()
	t := s.begin(call, o.action)
	answer, err := o.run(s, ctx, t)
	return Performed{t, answer, err}
}

// Record writes an audit record for each operation, all in one go, and only then
// returns their results, in order.
func (s *Service) Record(performed []Performed) []Result {
	entries, durability := make([]*audit.Entry, 0, len(performed)), audit.Hot
	for _, p := range performed {
		if p.trace != nil {
			durability = max(durability, s.note(p.trace, p.err))
			entries = append(entries, &p.trace.entry)
		}
	}
	refused := s.append(entries, durability)
	results := make([]Result, len(performed))
	for i, p := range performed {
		err := p.err
		if p.trace != nil {
			err = s.noted(p.trace, err, refused[0])
			refused = refused[1:]
		}
		if err != nil {
			results[i] = Result{Err: err}
		} else {
			results[i] = Result{Response: p.answer}
		}
	}
	return results
}

// append writes a line for each entry in one go; one that is too long fails alone.
func (s *Service) append(entries []*audit.Entry, d audit.Durability) []error {
	refused := make([]error, len(entries))
	if len(entries) == 0 {
		return refused
	}
	_, err := s.audit.AppendAll(entries, d)
	for i := range entries {
		if refused[i] = err; len(entries) > 1 && errors.Is(err, audit.ErrTooLarge) {
			_, refused[i] = s.audit.Append(entries[i], d)
		}
	}
	return refused
}

// actionBatch is what the audit log calls a batch.
const actionBatch policy.Action = "Batch"

// Batch performs 1 to MaxBatch operations and returns one result each, in order;
// none spoils another. One audit record covers them all. The error is not nil
// only when the batch as a whole is refused or cannot be recorded.
func (s *Service) Batch(ctx context.Context, call Call, operations []Operation) ([]Result, error) {
	return perform(ctx, s, call, actionBatch, operations, (*Service).batch)
}

func (s *Service) batch(ctx context.Context, t *trace, operations []Operation) ([]Result, error) {
	if len(operations) == 0 || len(operations) > MaxBatch {
		return nil, invalid("operations", "has %d entries; give 1 to %d", len(operations), MaxBatch)
	}
	results := make([]Result, len(operations))
	sum := newSummary(s)
	at := t.start
	for i, operation := range operations {
		if i%itemsPerTime == itemsPerTime-1 {
			at = s.now()
		}
		results[i] = s.item(ctx, t, at, operation, sum)
	}
	t.entry.Batch = sum.counts
	for action, n := range sum.items {
		s.config.Observer.Items(action, n)
	}
	return results, nil
}

// itemsPerTime is how many items of a batch are decided by one reading of the clock:
// a fraction of a millisecond's worth.
const itemsPerTime = 64

func (s *Service) item(ctx context.Context, t *trace, at time.Time, operation Operation, sum *summary) Result {
	if operation == nil {
		return Result{Err: errNoOperation()}
	}
	if err := ctx.Err(); err != nil {
		return Result{Err: storeError(err)}
	}
	o := operation.operation()
	item := beginAt(t.call, o.action, at)
	answer, err := o.run(s, ctx, item)
	sum.add(item, err)
	t.durable = t.durable || item.durable
	t.entry.PolicyRevision = item.entry.PolicyRevision
	traces.Put(item)
	if err != nil {
		return Result{Err: err}
	}
	return Result{Response: answer}
}

// summary counts a batch's items for its audit record.
type summary struct {
	service *Service
	counts  []audit.BatchCount
	last    int // most items are like the one before
	index   map[summaryKey]int
	hashes  map[summaryHash]struct{}
	items   map[policy.Action]int
}

func newSummary(s *Service) *summary {
	return &summary{service: s, index: map[summaryKey]int{}, hashes: map[summaryHash]struct{}{}, items: map[policy.Action]int{}}
}

type summaryKey struct {
	action, namespace, key string
	id                     uint64
	version                uint32
}

func keyOf(c *audit.BatchCount) summaryKey {
	return summaryKey{c.Action, c.Namespace, c.Key, c.KeyID, c.Version}
}

// summaryHash is an encryption context's hash within one count.
type summaryHash struct {
	count int
	hash  string
}

func (sum *summary) add(t *trace, err error) {
	sum.items[t.action]++
	e := &t.entry
	i := sum.count(audit.BatchCount{Action: e.Action, Namespace: e.Namespace, Key: e.Key, KeyID: e.KeyID, Version: e.Version}, err)
	if len(e.EncryptionContext) > 0 {
		sum.addHash(i, sum.service.contextHash(e.EncryptionContext))
	}
	if t.destination != nil {
		sum.count(*t.destination, err)
	}
}

// count adds one item to the count of its key version, and returns its place.
func (sum *summary) count(c audit.BatchCount, err error) int {
	key := keyOf(&c)
	i, ok := sum.last, sum.last < len(sum.counts) && keyOf(&sum.counts[sum.last]) == key
	if !ok {
		i, ok = sum.index[key]
	}
	if !ok {
		i = len(sum.counts)
		sum.index[key] = i
		sum.counts = append(sum.counts, c)
	}
	sum.last = i
	if err == nil {
		sum.counts[i].OK++
	} else {
		sum.counts[i].Failed++
	}
	return i
}

func (sum *summary) addHash(count int, hash string) {
	if _, known := sum.hashes[summaryHash{count, hash}]; hash == "" || known {
		return
	}
	sum.hashes[summaryHash{count, hash}] = struct{}{}
	sum.counts[count].ContextHashes = append(sum.counts[count].ContextHashes, hash)
}

// contextHash is how the audit log names an encryption context that it does not
// record: by SHA-256 of its canonical form or, where contexts are not to be
// guessed, by HMAC-SHA-256 under a key of the installation.
func (s *Service) contextHash(encryptionContext map[string]string) string {
	canonical, err := keyring.CanonicalContext(encryptionContext)
	if err != nil || len(canonical) == 0 {
		return ""
	}
	if s.config.HashContexts {
		return hex.EncodeToString(s.system.Tag("audit context", canonical))
	}
	hash := sha256.Sum256(canonical)
	return hex.EncodeToString(hash[:])
}

// jwkID is the kid of a version's JSON Web Key.
func jwkID(id ID, version uint32) string { return fmt.Sprintf("%s.%d", id, version) }
