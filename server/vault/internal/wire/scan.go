package wire

import (
	"bytes"
	"strconv"
)

// scan reads a body of the plain form: an object of the fields of an Item, or of a
// batch_input alone, whose texts have no escapes. It declines all else.
func scan(body []byte, q *Request) bool {
	s := scanner{body}
	if !s.next('{') {
		return false
	}
	if name, ok := s.peekName(); ok && string(name) == "batch_input" {
		q.Batch = true
		return s.name("batch_input") && s.items(q) && s.next('}') && s.end()
	}
	q.Items = append(q.Items, Item{})
	return s.item(&q.Items[0]) && s.end()
}

type scanner struct{ rest []byte }

func (s *scanner) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\n' || s.rest[0] == '\t' || s.rest[0] == '\r') {
		s.rest = s.rest[1:]
	}
}

func (s *scanner) next(c byte) bool {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *scanner) end() bool {
	s.space()
	return len(s.rest) == 0
}

// text reads printable ASCII without escapes.
func (s *scanner) text() ([]byte, bool) {
	if !s.next('"') {
		return nil, false
	}
	n := bytes.IndexByte(s.rest, '"')
	if n < 0 {
		return nil, false
	}
	text := s.rest[:n:n]
	for _, c := range text {
		if c < ' ' || c > '~' || c == '\\' {
			return nil, false
		}
	}
	s.rest = s.rest[n+1:]
	return text, true
}

func (s *scanner) peekName() ([]byte, bool) {
	before := s.rest
	defer func() { s.rest = before }()
	return s.text()
}

func (s *scanner) name(want string) bool {
	name, ok := s.text()
	return ok && string(name) == want && s.next(':')
}

func (s *scanner) items(q *Request) bool {
	if !s.next('[') {
		return false
	}
	for {
		if !s.next('{') {
			return false
		}
		q.Items = append(q.Items, Item{})
		if !s.item(&q.Items[len(q.Items)-1]) {
			return false
		}
		if s.next(']') {
			return true
		}
		if !s.next(',') {
			return false
		}
	}
}

// item reads the fields of an object whose brace was read.
func (s *scanner) item(i *Item) bool {
	if s.next('}') {
		return true
	}
	for {
		name, ok := s.text()
		if !ok || !s.next(':') || !s.value(i, name) {
			return false
		}
		if s.next('}') {
			return true
		}
		if !s.next(',') {
			return false
		}
	}
}

func (s *scanner) value(i *Item, name []byte) bool {
	var at *[]byte
	switch string(name) {
	case "plaintext":
		at = &i.Plaintext
	case "ciphertext":
		at = &i.Ciphertext
	case "input":
		at = &i.Input
	case "context":
		at = &i.Context
	case "associated_data":
		at = &i.AAD
	case "reference":
		at = &i.Reference
	case "key_version":
		return i.Version == 0 && s.version(&i.Version)
	default:
		return false
	}
	if *at != nil { // given twice: encoding/json takes the last one
		return false
	}
	text, ok := s.text()
	*at = text
	return ok
}

func (s *scanner) version(v *uint32) bool {
	s.space()
	n := 0
	for n < len(s.rest) && s.rest[n] >= '0' && s.rest[n] <= '9' {
		n++
	}
	if n == 0 || n > 1 && s.rest[0] == '0' || n < len(s.rest) && bytes.IndexByte([]byte(",} \n\t\r"), s.rest[n]) < 0 {
		return false
	}
	number, err := strconv.ParseUint(string(s.rest[:n]), 10, 31)
	s.rest = s.rest[n:]
	*v = uint32(number)
	return err == nil
}
