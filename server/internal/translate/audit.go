package translate

import (
	"strconv"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// Page sizes of audit entries.
const (
	defaultEntries = 100
	maxEntries     = 1000
	maxBacklog     = 10_000
)

// ListEntries reads a ListEntriesRequest. The page token is the sequence to go
// on from, in decimal.
func ListEntries(q *pb.ListEntriesRequest) (audit.Filter, error) {
	filter, err := auditFilter(q.Filter)
	if err != nil {
		return filter, err
	}
	filter.Newest = q.Newest
	switch {
	case q.PageSize < 0 || q.PageSize > maxEntries:
		return filter, invalid("page_size", "page_size must be 0 to 1000; 0 means 100")
	case q.PageSize == 0:
		filter.Limit = defaultEntries
	default:
		filter.Limit = int(q.PageSize)
	}
	return filter, pageToken(q, &filter)
}

func pageToken(q *pb.ListEntriesRequest, filter *audit.Filter) error {
	if q.PageToken == "" {
		return nil
	}
	from, err := strconv.ParseUint(q.PageToken, 10, 64)
	if err != nil || q.Newest {
		return invalid("page_token", "page_token must be a next_page_token of this method, and excludes newest")
	}
	filter.From = from
	return nil
}

// TailEntries reads a TailEntriesRequest.
func TailEntries(q *pb.TailEntriesRequest) (filter audit.Filter, backlog int, err error) {
	if q.Backlog < 0 || q.Backlog > maxBacklog {
		return filter, 0, invalid("backlog", "backlog must be 0 to 10000")
	}
	filter, err = auditFilter(q.Filter)
	return filter, int(q.Backlog), err
}

func auditFilter(f *pb.AuditFilter) (audit.Filter, error) {
	filter := audit.Filter{Principal: f.GetPrincipal(), Action: f.GetAction(), Namespace: f.GetNamespace(),
		Key: f.GetKey(), Outcome: f.GetOutcome(), RequestID: f.GetRequestId(), TokenID: f.GetTokenId()}
	var err error
	if filter.Since, err = moment("filter.since", f.GetSince()); err != nil {
		return filter, err
	}
	filter.Until, err = moment("filter.until", f.GetUntil())
	return filter, err
}

// Entry writes an AuditEntry.
func Entry(e audit.Entry) *pb.AuditEntry {
	return &pb.AuditEntry{Sequence: e.Sequence, Line: string(e.AppendJSON(nil))}
}

// Entries writes a ListEntriesResponse to the request with this filter.
func Entries(entries []audit.Entry, filter audit.Filter) *pb.ListEntriesResponse {
	response := &pb.ListEntriesResponse{Entries: each(entries, Entry)}
	if n := len(entries); n == filter.Limit && !filter.Newest {
		response.NextPageToken = strconv.FormatUint(entries[n-1].Sequence+1, 10)
	}
	return response
}

// GetCheckpoint reads a GetCheckpointRequest.
func GetCheckpoint(q *pb.GetCheckpointRequest) (uint64, error) { return q.KnownSize, nil }

// Checkpoint writes a GetCheckpointResponse.
func Checkpoint(c kms.Checkpoint) *pb.GetCheckpointResponse {
	response := &pb.GetCheckpointResponse{Checkpoint: string(c.Note), Keys: string(c.Keys)}
	for _, hash := range c.Consistency {
		response.Consistency = append(response.Consistency, hash[:])
	}
	return response
}

// ProveEntry reads a ProveEntryRequest.
func ProveEntry(q *pb.ProveEntryRequest) (uint64, error) { return q.Sequence, nil }

// EntryProof writes a ProveEntryResponse.
func EntryProof(p kms.EntryProof) *pb.ProveEntryResponse {
	return &pb.ProveEntryResponse{Entry: &pb.AuditEntry{Sequence: p.Sequence, Line: string(p.Line)}, Proof: string(p.Proof), Keys: string(p.Keys)}
}

// RotateAuditKey reads a RotateAuditKeyRequest.
func RotateAuditKey(q *pb.RotateAuditKeyRequest) (string, error) { return q.IdempotencyKey, nil }

// AuditKey writes a RotateAuditKeyResponse.
func AuditKey(k kms.AuditKey) *pb.RotateAuditKeyResponse {
	return &pb.RotateAuditKeyResponse{Key: k.Key, FromSize: k.From}
}
