package translate

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// timestamp returns nil, which is an absent field, for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// moment returns the zero time for an absent field.
func moment(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if !t.IsValid() {
		return time.Time{}, invalid(field, field+" is not a valid time")
	}
	return t.AsTime(), nil
}

// span reads a duration that must be given; more than a Go duration holds is
// left to the core to refuse as too long.
func span(field string, d *durationpb.Duration) (time.Duration, error) {
	if !d.IsValid() {
		return 0, invalid(field, field+" is not a valid duration; write seconds such as 3600s")
	}
	return d.AsDuration(), nil
}

// duration returns nil, which is an absent field, for no time at all.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// optionalSpan returns nil for an absent field.
func optionalSpan(field string, d *durationpb.Duration) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	value, err := span(field, d)
	return &value, err
}

// labels returns nil for an absent field, which leaves labels as they are.
func labels(l *pb.Labels) *map[string]string {
	if l == nil {
		return nil
	}
	entries := l.GetEntries()
	return &entries
}

// enum returns the core's text of a value, "" for the unspecified one.
func enum[E interface {
	~int32
	String() string
}](value E) string {
	if value == 0 {
		return ""
	}
	return value.String()
}

func invalid(field, message string) *kms.Error {
	return &kms.Error{Code: kms.InvalidArgument, Reason: "INVALID_FIELD", Field: field, Message: message}
}

// each translates a page of a list.
func each[From any, To any](items []From, one func(From) To) []To {
	out := make([]To, len(items))
	for i, item := range items {
		out[i] = one(item)
	}
	return out
}
