package canonical

import (
	"strconv"
	"strings"
	"time"
)

// Parser walks over one line. After the first failure every step does nothing,
// so that steps need no error handling of their own.
type Parser struct {
	rest   string
	first  bool // the next field is the first of its object
	failed bool
}

// NewParser begins at the start of a line.
func NewParser(line string) *Parser { return &Parser{rest: line} }

// Done reports whether every step succeeded and nothing is left.
func (p *Parser) Done() bool { return !p.failed && p.rest == "" }

// Left returns how many bytes are left.
func (p *Parser) Left() int { return len(p.rest) }

// Object steps over an object whose fields the function reads.
func (p *Parser) Object(fields func()) {
	p.Literal("{")
	p.first = true
	fields()
	p.Literal("}")
	p.first = false
}

// Check fails unless ok.
func (p *Parser) Check(ok bool) { p.failed = p.failed || !ok }

// Literal steps over s, which must be next.
func (p *Parser) Literal(s string) {
	rest, ok := strings.CutPrefix(p.rest, s)
	p.Check(ok)
	if !p.failed {
		p.rest = rest
	}
}

// Field steps over a field's name if that is next.
func (p *Parser) Field(name string) bool {
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

func (p *Parser) quoted() string {
	value, rest, ok := cutQuoted(p.rest)
	p.Check(ok)
	if !p.failed {
		p.rest = rest
	}
	return value
}

// Digits reads a decimal number without superfluous zeros.
func (p *Parser) Digits() uint64 {
	end := 0
	for end < len(p.rest) && '0' <= p.rest[end] && p.rest[end] <= '9' {
		end++
	}
	value, err := strconv.ParseUint(p.rest[:end], 10, 64)
	p.Check(err == nil && (p.rest[0] != '0' || end == 1))
	if !p.failed {
		p.rest = p.rest[end:]
	}
	return value
}

// Text reads a field of text, which must not be empty.
func (p *Parser) Text(name string, value *string) {
	if p.Field(name) {
		*value = p.quoted()
		p.Check(*value != "")
	}
}

// Number reads a field with a number, which must not be 0.
func (p *Parser) Number(name string, value *uint64) {
	if p.Field(name) {
		*value = p.Digits()
		p.Check(*value != 0)
	}
}

// Number32 is Number for a smaller one.
func (p *Parser) Number32(name string, value *uint32) {
	var wide uint64
	p.Number(name, &wide)
	*value = uint32(wide)
	p.Check(uint64(*value) == wide)
}

// ID reads what AppendID writes.
func (p *Parser) ID(name string, id *uint64) {
	if !p.Field(name) {
		return
	}
	digits := p.quoted()
	value, err := strconv.ParseUint(digits, 16, 64)
	p.Check(err == nil && len(digits) == 16 && value != 0 && digits == strings.ToLower(digits))
	*id = value
}

// List reads one or more items between brackets.
func (p *Parser) List(item func()) {
	p.Literal("[")
	for item(); !p.failed && strings.HasPrefix(p.rest, ","); item() {
		p.Literal(",")
	}
	p.Literal("]")
}

// Texts reads a field with a list of texts.
func (p *Parser) Texts(name string, values *[]string) {
	if p.Field(name) {
		p.List(func() { *values = append(*values, p.quoted()) })
	}
}

// Pairs reads an object of strings whose keys must rise.
func (p *Parser) Pairs(name string, pairs *map[string]string) {
	if !p.Field(name) {
		return
	}
	*pairs = make(map[string]string)
	last := ""
	p.Literal("{")
	for !p.failed {
		key := p.quoted()
		p.Check(len(*pairs) == 0 || key > last)
		p.Literal(":")
		(*pairs)[key], last = p.quoted(), key
		if !strings.HasPrefix(p.rest, ",") {
			break
		}
		p.Literal(",")
	}
	p.Literal("}")
}

// Time reads what AppendTime writes. time.Parse is more lenient than that, so
// its result must spell the same again.
func (p *Parser) Time(t *time.Time) {
	const shape = `,"time":"2006-01-02T15:04:05.000000Z"`
	if p.failed || len(p.rest) < len(shape) {
		p.Check(false)
		return
	}
	var room [len(shape)]byte
	parsed, err := time.Parse(shape, p.rest[:len(shape)])
	p.Check(err == nil && string(AppendTime(room[:0], parsed)) == p.rest[:len(shape)])
	if !p.failed {
		*t, p.rest = parsed, p.rest[len(shape):]
	}
}
