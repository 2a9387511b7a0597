package audit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrCorrupt is what errors.Is finds when a line, or the order of lines, is
// not what this package wrote.
var ErrCorrupt = errors.New("audit log is corrupt")

// ParseEntry reads a line as AppendJSON writes it, without the newline. It is
// strict: fields in another order, other spellings of the same value, unknown
// fields and unknown format versions are refused with ErrCorrupt, so a line
// that parses is byte for byte the one that its entry encodes to.
func ParseEntry(line []byte) (Entry, error) {
	var e Entry
	p := parser{rest: string(line)}
	p.literal(`{"v":1,"seq":`)
	e.Sequence = p.digits()
	p.body(&e)
	if p.failed {
		return Entry{}, fmt.Errorf("%w: not a line of format %d at byte %d", ErrCorrupt, FormatVersion, len(line)-len(p.rest))
	}
	return e, nil
}

// parser walks over one line. After the first failure every step does nothing,
// so that steps need no error handling of their own.
type parser struct {
	rest   string
	first  bool // the next field is the first of its object
	failed bool
}

func (p *parser) body(e *Entry) {
	p.time(&e.Time)
	p.phase(&e.Phase)
	p.number("intent", &e.Intent)
	p.text("request_id", &e.RequestID)
	p.text("principal", &e.Principal)
	p.text("method", &e.Method)
	p.text("token_id", &e.TokenID)
	p.text("source", &e.Source)
	p.text("action", &e.Action)
	p.text("namespace", &e.Namespace)
	p.text("key", &e.Key)
	p.id("key_id", &e.KeyID)
	p.number32("version", &e.Version)
	p.text("decision", &e.Decision)
	p.texts("policies", &e.Policies)
	p.number("policy_revision", &e.PolicyRevision)
	p.text("outcome", &e.Outcome)
	p.text("reason", &e.Reason)
	p.pairs("context", &e.EncryptionContext)
	p.text("context_hash", &e.ContextHash)
	p.batch(&e.Batch)
	p.pairs("details", &e.Details)
	p.latency(&e.Latency)
	p.literal("}")
	p.check(p.rest == "")
}

func (p *parser) batch(counts *[]BatchCount) {
	if !p.field("batch") {
		return
	}
	p.list(func() {
		var b BatchCount
		p.literal("{")
		p.first = true
		p.text("action", &b.Action)
		p.text("namespace", &b.Namespace)
		p.text("key", &b.Key)
		p.id("key_id", &b.KeyID)
		p.number32("version", &b.Version)
		p.number32("ok", &b.OK)
		p.number32("failed", &b.Failed)
		p.texts("context_hashes", &b.ContextHashes)
		p.literal("}")
		p.first = false
		*counts = append(*counts, b)
	})
}

func (p *parser) check(ok bool) { p.failed = p.failed || !ok }

// literal steps over s, which must be next.
func (p *parser) literal(s string) {
	rest, ok := strings.CutPrefix(p.rest, s)
	p.check(ok)
	if !p.failed {
		p.rest = rest
	}
}

// field steps over a field's name if that is next.
func (p *parser) field(name string) bool {
	rest, ok := p.rest, !p.failed
	if ok && !p.first {
		rest, ok = strings.CutPrefix(rest, ",")
	}
	if !ok || len(rest) < len(name)+3 || rest[0] != '"' || rest[1:1+len(name)] != name || rest[1+len(name):3+len(name)] != `":` {
		return false
	}
	p.rest, p.first = rest[len(name)+3:], false
	return true
}

func (p *parser) quoted() string {
	value, rest, ok := cutQuoted(p.rest)
	p.check(ok)
	if !p.failed {
		p.rest = rest
	}
	return value
}

// digits reads a decimal number without superfluous zeros.
func (p *parser) digits() uint64 {
	end := 0
	for end < len(p.rest) && '0' <= p.rest[end] && p.rest[end] <= '9' {
		end++
	}
	value, err := strconv.ParseUint(p.rest[:end], 10, 64)
	p.check(err == nil && (p.rest[0] != '0' || end == 1))
	if !p.failed {
		p.rest = p.rest[end:]
	}
	return value
}

func (p *parser) text(name string, value *string) {
	if p.field(name) {
		*value = p.quoted()
		p.check(*value != "")
	}
}

func (p *parser) number(name string, value *uint64) {
	if p.field(name) {
		*value = p.digits()
		p.check(*value != 0)
	}
}

func (p *parser) number32(name string, value *uint32) {
	var wide uint64
	p.number(name, &wide)
	*value = uint32(wide)
	p.check(uint64(*value) == wide)
}

func (p *parser) id(name string, id *uint64) {
	if !p.field(name) {
		return
	}
	digits := p.quoted()
	value, err := strconv.ParseUint(digits, 16, 64)
	p.check(err == nil && len(digits) == 16 && value != 0 && digits == strings.ToLower(digits))
	*id = value
}

// list reads one or more items between brackets.
func (p *parser) list(item func()) {
	p.literal("[")
	for item(); !p.failed && strings.HasPrefix(p.rest, ","); item() {
		p.literal(",")
	}
	p.literal("]")
}

func (p *parser) texts(name string, values *[]string) {
	if p.field(name) {
		p.list(func() { *values = append(*values, p.quoted()) })
	}
}

// pairs reads an object of strings whose keys must rise.
func (p *parser) pairs(name string, pairs *map[string]string) {
	if !p.field(name) {
		return
	}
	*pairs = make(map[string]string)
	last := ""
	p.literal("{")
	for !p.failed {
		key := p.quoted()
		p.check(len(*pairs) == 0 || key > last)
		p.literal(":")
		(*pairs)[key], last = p.quoted(), key
		if !strings.HasPrefix(p.rest, ",") {
			break
		}
		p.literal(",")
	}
	p.literal("}")
}

func (p *parser) phase(phase *Phase) {
	var name string
	p.text("phase", &name)
	*phase = Phase(name)
	switch *phase {
	case PhaseOperation, PhaseIntent, PhaseOutcome, PhaseEvent:
	default:
		p.check(false)
	}
}

func (p *parser) latency(latency *time.Duration) {
	const most = uint64(1<<63-1) / uint64(time.Microsecond)
	var micros uint64
	p.number("latency_us", &micros)
	p.check(micros <= most)
	*latency = time.Duration(micros) * time.Microsecond
}

// time reads what appendTime writes. time.Parse is more lenient than that, so
// its result must spell the same again.
func (p *parser) time(t *time.Time) {
	const shape = `,"time":"2006-01-02T15:04:05.000000Z"`
	if p.failed || len(p.rest) < len(shape) {
		p.check(false)
		return
	}
	var room [len(shape)]byte
	parsed, err := time.Parse(shape, p.rest[:len(shape)])
	p.check(err == nil && string(appendTime(room[:0], parsed)) == p.rest[:len(shape)])
	if !p.failed {
		*t, p.rest = parsed, p.rest[len(shape):]
	}
}
