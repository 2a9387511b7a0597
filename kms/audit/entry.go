package audit

import (
	"time"

	"github.com/keywright/keywright/kms/audit/internal/canonical"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// FormatVersion is the version of the line format, the "v" of every line.
const FormatVersion = 1

// Phase says which part of an operation a line records.
type Phase string

// The phases. An operation that changes nothing has one line; a mutation has
// an intent, durable before anything changes, and an outcome that refers to it.
const (
	PhaseOperation Phase = ""        // the whole of a read or of a use of a key
	PhaseIntent    Phase = "intent"  // a mutation is about to be made
	PhaseOutcome   Phase = "outcome" // what became of the mutation
	PhaseEvent     Phase = "event"   // what nobody asked for: boot, background job, alarm
)

// Values of Entry.Decision.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Entry is one line of the log. It never holds plaintext, ciphertext or key
// material. Fields that are empty or zero are left out of the line, except the
// sequence and the time. The JSON names are in docs/audit.md.
//
// An Entry belongs to its caller; Append keeps no reference to it.
type Entry struct {
	Sequence  uint64    // place in the log, from 0 without gaps; set by Append
	Time      time.Time // when the operation began, in microseconds; Append sets it when zero
	RequestID string
	Phase     Phase
	Intent    uint64 // of an outcome: the sequence of its intent

	Principal string   // who asked
	Method    string   // how the principal was authenticated
	TokenID   string   // the token's public id, never the token
	Groups    []string // that the credential claims membership of
	Source    string   // network address or socket peer

	Action    string
	Namespace string
	Key       string
	KeyID     uint64 // 16 hexadecimal digits in JSON
	Version   uint32 // key version, from 1; 0 is none

	Decision       string   // Allow or Deny
	Policies       []string // the policies that decided
	PolicyRevision uint64
	Outcome        string // "OK" or the name of a status code
	Reason         string // short and for machines; never a secret

	EncryptionContext map[string]string
	ContextHash       string            // hexadecimal SHA-256 of the canonical context, where the context itself is not recorded
	Batch             []BatchCount      // of a batch: one per action and key version
	Details           map[string]string // of a mutation: what changed
	Records           map[string]string // of a mutation's outcome: path of each stored record that it wrote, and hexadecimal first 16 bytes of the SHA-256 of its payload, "" if it was removed
	Latency           time.Duration     // whole microseconds
}

// BatchCount sums up what a batch did with one key version.
type BatchCount struct {
	Action        string
	Namespace     string
	Key           string
	KeyID         uint64
	Version       uint32
	OK            uint32   // items that succeeded
	Failed        uint32   // items that did not
	ContextHashes []string // hexadecimal SHA-256 of each distinct canonical encryption context
}

// AppendJSON appends the entry to dst as one line of strict JSON, without the
// newline, and returns the extended slice. Fields have a fixed order and map
// keys are sorted, so equal entries give equal lines. Invalid UTF-8 becomes
// U+FFFD; control, line-breaking and invisible formatting characters are
// escaped, so that no value can break or disguise a line.
func (e *Entry) AppendJSON(dst []byte) []byte {
	return e.appendBody(layout.AppendHead(dst, e.Sequence))
}

// appendBody appends what follows the head. parseBody reads the same fields in
// the same order.
func (e *Entry) appendBody(dst []byte) []byte {
	dst = canonical.AppendTime(dst, e.Time)
	dst = canonical.AppendText(dst, `,"phase":`, string(e.Phase))
	dst = canonical.AppendNumber(dst, `,"intent":`, e.Intent)
	dst = canonical.AppendText(dst, `,"request_id":`, e.RequestID)
	dst = canonical.AppendText(dst, `,"principal":`, e.Principal)
	dst = canonical.AppendText(dst, `,"method":`, e.Method)
	dst = canonical.AppendText(dst, `,"token_id":`, e.TokenID)
	dst = canonical.AppendTexts(dst, `,"groups":`, e.Groups)
	dst = canonical.AppendText(dst, `,"source":`, e.Source)
	dst = canonical.AppendText(dst, `,"action":`, e.Action)
	dst = canonical.AppendText(dst, `,"namespace":`, e.Namespace)
	dst = canonical.AppendText(dst, `,"key":`, e.Key)
	dst = canonical.AppendID(dst, `,"key_id":`, e.KeyID)
	dst = canonical.AppendNumber(dst, `,"version":`, uint64(e.Version))
	dst = canonical.AppendText(dst, `,"decision":`, e.Decision)
	dst = canonical.AppendTexts(dst, `,"policies":`, e.Policies)
	dst = canonical.AppendNumber(dst, `,"policy_revision":`, e.PolicyRevision)
	dst = canonical.AppendText(dst, `,"outcome":`, e.Outcome)
	dst = canonical.AppendText(dst, `,"reason":`, e.Reason)
	dst = canonical.AppendPairs(dst, `,"context":`, e.EncryptionContext)
	dst = canonical.AppendText(dst, `,"context_hash":`, e.ContextHash)
	dst = appendBatch(dst, e.Batch)
	dst = canonical.AppendPairs(dst, `,"details":`, e.Details)
	dst = canonical.AppendPairs(dst, `,"records":`, e.Records)
	dst = canonical.AppendNumber(dst, `,"latency_us":`, uint64(max(0, e.Latency.Microseconds())))
	return append(dst, '}')
}

func appendBatch(dst []byte, counts []BatchCount) []byte {
	return canonical.AppendList(dst, `,"batch":`, counts, func(dst []byte, b *BatchCount) []byte { return b.appendJSON(dst) })
}

// appendJSON writes the fields, each with a comma before it, and makes a brace of
// the first comma.
func (b *BatchCount) appendJSON(dst []byte) []byte {
	start := len(dst)
	dst = canonical.AppendText(dst, `,"action":`, b.Action)
	dst = canonical.AppendText(dst, `,"namespace":`, b.Namespace)
	dst = canonical.AppendText(dst, `,"key":`, b.Key)
	dst = canonical.AppendID(dst, `,"key_id":`, b.KeyID)
	dst = canonical.AppendNumber(dst, `,"version":`, uint64(b.Version))
	dst = canonical.AppendNumber(dst, `,"ok":`, uint64(b.OK))
	dst = canonical.AppendNumber(dst, `,"failed":`, uint64(b.Failed))
	dst = canonical.AppendTexts(dst, `,"context_hashes":`, b.ContextHashes)
	if len(dst) == start {
		return append(dst, '{', '}')
	}
	dst[start] = '{'
	return append(dst, '}')
}
