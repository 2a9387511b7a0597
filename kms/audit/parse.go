package audit

import (
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/audit/internal/canonical"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// ErrCorrupt is what errors.Is finds when a line, or the order of lines, is
// not what this package wrote.
var ErrCorrupt = layout.ErrCorrupt

// ParseEntry reads a line as AppendJSON writes it, without the newline. It is
// strict: fields in another order, other spellings of the same value, unknown
// fields and unknown format versions are refused with ErrCorrupt, so a line
// that parses is byte for byte the one that its entry encodes to.
func ParseEntry(line []byte) (Entry, error) {
	var e Entry
	p := canonical.NewParser(string(line))
	p.Literal(`{"v":1,"seq":`)
	e.Sequence = p.Digits()
	parseBody(p, &e)
	if !p.Done() {
		return Entry{}, fmt.Errorf("%w: not a line of format %d at byte %d", ErrCorrupt, FormatVersion, len(line)-p.Left())
	}
	return e, nil
}

func parseBody(p *canonical.Parser, e *Entry) {
	p.Time(&e.Time)
	parsePhase(p, &e.Phase)
	p.Number("intent", &e.Intent)
	p.Text("request_id", &e.RequestID)
	p.Text("principal", &e.Principal)
	p.Text("method", &e.Method)
	p.Text("token_id", &e.TokenID)
	p.Texts("groups", &e.Groups)
	p.Text("source", &e.Source)
	p.Text("action", &e.Action)
	p.Text("namespace", &e.Namespace)
	p.Text("key", &e.Key)
	p.ID("key_id", &e.KeyID)
	p.Number32("version", &e.Version)
	p.Text("decision", &e.Decision)
	p.Texts("policies", &e.Policies)
	p.Number("policy_revision", &e.PolicyRevision)
	p.Text("outcome", &e.Outcome)
	p.Text("reason", &e.Reason)
	p.Pairs("context", &e.EncryptionContext)
	p.Text("context_hash", &e.ContextHash)
	parseBatch(p, &e.Batch)
	p.Pairs("details", &e.Details)
	p.Pairs("records", &e.Records)
	parseLatency(p, &e.Latency)
	p.Literal("}")
}

func parseBatch(p *canonical.Parser, counts *[]BatchCount) {
	if !p.Field("batch") {
		return
	}
	p.List(func() {
		var b BatchCount
		p.Object(func() {
			p.Text("action", &b.Action)
			p.Text("namespace", &b.Namespace)
			p.Text("key", &b.Key)
			p.ID("key_id", &b.KeyID)
			p.Number32("version", &b.Version)
			p.Number32("ok", &b.OK)
			p.Number32("failed", &b.Failed)
			p.Texts("context_hashes", &b.ContextHashes)
		})
		*counts = append(*counts, b)
	})
}

func parsePhase(p *canonical.Parser, phase *Phase) {
	var name string
	p.Text("phase", &name)
	*phase = Phase(name)
	switch *phase {
	case PhaseOperation, PhaseIntent, PhaseOutcome, PhaseEvent:
	default:
		p.Check(false)
	}
}

func parseLatency(p *canonical.Parser, latency *time.Duration) {
	const most = uint64(1<<63-1) / uint64(time.Microsecond)
	var micros uint64
	p.Number("latency_us", &micros)
	p.Check(micros <= most)
	*latency = time.Duration(micros) * time.Microsecond
}
