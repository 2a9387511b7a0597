package audit

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
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

	Principal string // who asked
	Method    string // how the principal was authenticated
	TokenID   string // the token's public id, never the token
	Source    string // network address or socket peer

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
	return e.appendBody(appendHead(dst, e.Sequence))
}

// appendHead appends the start of a line, which is all that depends on its
// place in the log: the rest is encoded before the place is known.
func appendHead(dst []byte, sequence uint64) []byte {
	dst = append(dst, `{"v":1,"seq":`...)
	return strconv.AppendUint(dst, sequence, 10)
}

// appendBody appends what follows the head. parseBody reads the same fields in
// the same order.
func (e *Entry) appendBody(dst []byte) []byte {
	dst = appendTime(dst, e.Time)
	dst = appendText(dst, "phase", string(e.Phase))
	dst = appendNumber(dst, "intent", e.Intent)
	dst = appendText(dst, "request_id", e.RequestID)
	dst = appendText(dst, "principal", e.Principal)
	dst = appendText(dst, "method", e.Method)
	dst = appendText(dst, "token_id", e.TokenID)
	dst = appendText(dst, "source", e.Source)
	dst = appendText(dst, "action", e.Action)
	dst = appendText(dst, "namespace", e.Namespace)
	dst = appendText(dst, "key", e.Key)
	dst = appendID(dst, "key_id", e.KeyID)
	dst = appendNumber(dst, "version", uint64(e.Version))
	dst = appendText(dst, "decision", e.Decision)
	dst = appendTexts(dst, "policies", e.Policies)
	dst = appendNumber(dst, "policy_revision", e.PolicyRevision)
	dst = appendText(dst, "outcome", e.Outcome)
	dst = appendText(dst, "reason", e.Reason)
	dst = appendPairs(dst, "context", e.EncryptionContext)
	dst = appendText(dst, "context_hash", e.ContextHash)
	dst = appendBatch(dst, e.Batch)
	dst = appendPairs(dst, "details", e.Details)
	dst = appendNumber(dst, "latency_us", uint64(max(0, e.Latency.Microseconds())))
	return append(dst, '}')
}

func appendBatch(dst []byte, counts []BatchCount) []byte {
	if len(counts) == 0 {
		return dst
	}
	dst = append(appendName(dst, "batch"), '[')
	for i := range counts {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = counts[i].appendJSON(dst)
	}
	return append(dst, ']')
}

func (b *BatchCount) appendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	dst = appendText(dst, "action", b.Action)
	dst = appendText(dst, "namespace", b.Namespace)
	dst = appendText(dst, "key", b.Key)
	dst = appendID(dst, "key_id", b.KeyID)
	dst = appendNumber(dst, "version", uint64(b.Version))
	dst = appendNumber(dst, "ok", uint64(b.OK))
	dst = appendNumber(dst, "failed", uint64(b.Failed))
	dst = appendTexts(dst, "context_hashes", b.ContextHashes)
	return append(dst, '}')
}

func appendName(dst []byte, name string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}

func appendText(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendQuoted(appendName(dst, name), value)
}

func appendNumber(dst []byte, name string, value uint64) []byte {
	if value == 0 {
		return dst
	}
	return strconv.AppendUint(appendName(dst, name), value, 10)
}

func appendID(dst []byte, name string, id uint64) []byte {
	if id == 0 {
		return dst
	}
	dst = append(appendName(dst, name), '"')
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[id>>shift&0xf])
	}
	return append(dst, '"')
}

func appendTexts(dst []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return dst
	}
	dst = append(appendName(dst, name), '[')
	for i, value := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendQuoted(dst, value)
	}
	return append(dst, ']')
}

func appendPairs(dst []byte, name string, pairs map[string]string) []byte {
	if len(pairs) == 0 {
		return dst
	}
	var room [16]string // keeps the common case off the heap
	keys, valid := room[:0], true
	for key := range pairs {
		keys = append(keys, key)
		valid = valid && utf8.ValidString(key)
	}
	slices.Sort(keys)
	if !valid {
		return appendPairs(dst, name, withValidKeys(pairs, keys))
	}
	dst = append(appendName(dst, name), '{')
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendQuoted(dst, key), ':')
		dst = appendQuoted(dst, pairs[key])
	}
	return append(dst, '}')
}

// withValidKeys repairs keys before they are sorted for output: afterwards two
// of them may be the same, and a line must not have a name twice.
func withValidKeys(pairs map[string]string, sorted []string) map[string]string {
	repaired := make(map[string]string, len(pairs))
	for _, key := range sorted {
		repaired[strings.ToValidUTF8(key, "\uFFFD")] = pairs[key]
	}
	return repaired
}

// appendTime writes RFC 3339 with exactly six digits of a second, in UTC. The
// standard library has a fast path only for whole seconds, so those digits are
// put in by hand. A year that RFC 3339 cannot write becomes the zero time.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		t = time.Time{}
	}
	dst = append(dst, `,"time":"`...)
	dst = t.AppendFormat(dst, time.RFC3339)
	dst[len(dst)-1] = '.'
	micros := t.Nanosecond() / 1000
	for unit := 100_000; unit > 0; unit /= 10 {
		dst = append(dst, byte('0'+micros/unit%10))
	}
	return append(dst, 'Z', '"')
}
