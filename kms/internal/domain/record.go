package domain

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// A stored record:
//
//	byte  0       format, 0x01
//	bytes 1..8    namespace id, big endian
//	bytes 9..12   generation of the domain secret, big endian
//	bytes 13..20  revision base: the store revision of the record replaced, 0 for none
//	rest          payload, then HMAC-SHA-256 over len(path) ‖ path ‖ all before
//
// The MAC binds a record to its path; the revision base must lie before the
// revision at which the store holds the record.
const (
	recordFormat = 0x01
	headerSize   = 1 + 8 + 4 + 8
)

// Authenticate returns the stored form of payload at path, which replaces the
// record of revision base; nil if the domain's keys were dropped.
func (d *Domain) Authenticate(path string, base uint64, payload []byte) []byte {
	k := d.keys.Load()
	if k == nil {
		return nil
	}
	b := make([]byte, 0, headerSize+len(payload)+sha256.Size)
	b = append(b, recordFormat)
	b = binary.BigEndian.AppendUint64(b, d.id.Namespace)
	b = binary.BigEndian.AppendUint32(b, d.id.Generation)
	b = binary.BigEndian.AppendUint64(b, base)
	b = append(b, payload...)
	return append(b, k.mac(path, b)...)
}

// Verify returns the payload of a record that was authenticated for path under a
// generation that is in force, else ErrNotAuthentic. The payload aliases record.
func (d *Domain) Verify(path string, revision uint64, record []byte) ([]byte, error) {
	payload, err := Peek(record)
	if err != nil {
		return nil, err
	}
	g, err := d.of(binary.BigEndian.Uint32(record[9:13]))
	if err != nil {
		return nil, err
	}
	k := g.keys.Load()
	if k == nil {
		return nil, ErrDropped
	}
	end := len(record) - sha256.Size
	if !hmac.Equal(k.mac(path, record[:end]), record[end:]) {
		return nil, ErrNotAuthentic
	}
	if binary.BigEndian.Uint64(record[13:21]) >= revision {
		return nil, ErrNotAuthentic
	}
	return payload, nil
}

// Peek returns a record's payload unverified: only to find the wrapped secret
// that the record itself is authenticated by.
func Peek(record []byte) ([]byte, error) {
	if len(record) < headerSize+sha256.Size || record[0] != recordFormat {
		return nil, ErrNotAuthentic
	}
	return record[headerSize : len(record)-sha256.Size], nil
}

// Claimed returns the namespace and generation by whose domain a record claims
// to be authenticated, unverified.
func Claimed(record []byte) (namespace uint64, generation uint32, err error) {
	if _, err := Peek(record); err != nil {
		return 0, 0, err
	}
	return binary.BigEndian.Uint64(record[1:9]), binary.BigEndian.Uint32(record[9:13]), nil
}
