package ui

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

type fruit struct{ name, color string }

func columns() []Column[fruit] {
	return []Column[fruit]{
		{Title: "name", Value: func(f fruit) string { return f.name }},
		{Title: "color", Value: func(f fruit) string { return f.color }},
		{Title: "length", Detail: true, Value: func(f fruit) string { return Number(uint32(len(f.color))) }},
	}
}

func TestListAndDescribe(t *testing.T) {
	var out bytes.Buffer
	if err := List(&out, columns(), []fruit{{"apple", "red\x1b"}, {"fig", ""}}); err != nil {
		t.Fatal(err)
	}
	if want := "NAME   COLOR\napple  \"red\\x1b\"\nfig    -\n"; out.String() != want {
		t.Errorf("List wrote\n%swant\n%s", &out, want)
	}
	out.Reset()
	if err := Describe(&out, columns(), fruit{"apple", "red"}); err != nil {
		t.Fatal(err)
	}
	if want := "Name    apple\nColor   red\nLength  3\n"; out.String() != want {
		t.Errorf("Describe wrote\n%swant\n%s", &out, want)
	}
}

func TestJSONListOfNothing(t *testing.T) {
	var out bytes.Buffer
	if err := JSONList[*timestamppb.Timestamp](&out, nil); err != nil || out.String() != "[]\n" {
		t.Errorf("wrote %q, %v", &out, err)
	}
}

func TestTimeAndPairs(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 11, 23, 13, 0, 0, 5, time.FixedZone("", 3600)))
	if got := Time(at); got != "2026-11-23T12:00:00Z" || Time(nil) != "" {
		t.Errorf("Time gave %q and %q", got, Time(nil))
	}
	if got := Pairs(map[string]string{"b": "2", "a": "1"}); got != "a=1,b=2" {
		t.Errorf("Pairs gave %q", got)
	}
}
