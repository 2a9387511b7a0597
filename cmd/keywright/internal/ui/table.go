package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Column is one property of T in a table.
type Column[T any] struct {
	Title  string
	Detail bool // shown by Describe only
	Value  func(T) string
}

// List writes a line for each item, under a line of titles.
func List[T any](w io.Writer, columns []Column[T], items []T) error {
	columns = slices.DeleteFunc(slices.Clone(columns), func(c Column[T]) bool { return c.Detail })
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cell func(Column[T]) string) {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = cell(c)
		}
		_, _ = fmt.Fprintln(table, strings.Join(cells, "\t")) // Flush returns the error
	}
	line(func(c Column[T]) string { return strings.ToUpper(c.Title) })
	for _, item := range items {
		line(func(c Column[T]) string { return Cell(c.Value(item)) })
	}
	return table.Flush()
}

// Describe writes a line for each column of one item.
func Describe[T any](w io.Writer, columns []Column[T], item T) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range columns {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", strings.ToUpper(c.Title[:1])+c.Title[1:], Cell(c.Value(item))) // Flush returns the error
	}
	return table.Flush()
}

// Cell returns text as a table shows it: quoted where it holds characters that
// could change the display, and "-" where it is empty.
func Cell(text string) string {
	if text == "" {
		return "-"
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// Line returns text in one line, without control characters.
func Line(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }), " ")
}

// Time returns a time in UTC (RFC 3339), and nothing when there is none.
func Time(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return at.AsTime().UTC().Format(time.RFC3339)
}

// Pairs returns k=v, sorted by key.
func Pairs(pairs map[string]string) string {
	out := make([]string, 0, len(pairs))
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		out = append(out, key+"="+pairs[key])
	}
	return strings.Join(out, ",")
}

// JSON writes a message as indented JSON with the names of the REST API, zero
// values included.
func JSON(w io.Writer, message proto.Message) error {
	raw, err := protoJSON(message)
	if err != nil {
		return err
	}
	return ValueJSON(w, raw)
}

// JSONList writes messages as an indented JSON array.
func JSONList[T proto.Message](w io.Writer, messages []T) error {
	list := make([]json.RawMessage, len(messages))
	for i, message := range messages {
		raw, err := protoJSON(message)
		if err != nil {
			return err
		}
		list[i] = raw
	}
	return ValueJSON(w, list)
}

func protoJSON(message proto.Message) (json.RawMessage, error) {
	return protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
}

// ValueJSON writes any value as indented JSON.
func ValueJSON(w io.Writer, value any) error {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

// Number returns n, and nothing when it is zero.
func Number(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

// YesNo returns yes or no.
func YesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
