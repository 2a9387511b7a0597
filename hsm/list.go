package hsm

import (
	"context"
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// ListKeys implements Keys. It is linear in the number of objects on the token, and
// asks for them in pieces, each of which is a call.
func (d *Device) ListKeys(ctx context.Context) (ids []KeyID, err error) {
	const attempts = 3
	for range attempts {
		ids, err = d.listKeys(ctx)
		if !errors.Is(err, errOtherConnection) {
			return ids, err
		}
	}
	return nil, fault(ClassDevice, err)
}

// errOtherConnection means that handles were found on a connection that was
// replaced since: they may name other objects now.
var errOtherConnection = errors.New("token was connected anew meanwhile")

// objects are handles of one connection.
type objects struct {
	on      *cryptoki.Connection
	handles []cryptoki.Handle
}

func (d *Device) listKeys(ctx context.Context) ([]KeyID, error) {
	const op, piece = "list keys", 64
	all, err := call(ctx, d, op, func(s *session) (objects, error) { return d.allKeys(s) })
	if err != nil {
		return nil, err
	}
	var ids []KeyID
	for handles := range slices.Chunk(all.handles, piece) {
		some, err := call(ctx, d, op, func(s *session) ([]KeyID, error) {
			if s.Connection != all.on {
				return nil, errOtherConnection
			}
			return s.idsOf(handles)
		})
		if err != nil {
			return nil, err
		}
		ids = append(ids, some...)
	}
	slices.SortFunc(ids, func(a, b KeyID) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(ids), nil // the halves of a pair share one
}

// allKeys finds all objects that may be keys, or what is left of them. A sick token
// finds none.
func (d *Device) allKeys(s *session) (objects, error) {
	all := objects{on: s.Connection}
	for _, class := range []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
		handles, err := s.OfClass(class)
		if err != nil {
			return objects{}, err
		}
		all.handles = append(all.handles, handles...)
	}
	return all, d.assure(s)
}

// idsOf returns the ids of those objects whose labels say that they are
// HSM-resident keys.
func (s *session) idsOf(handles []cryptoki.Handle) ([]KeyID, error) {
	var ids []KeyID
	for _, handle := range handles {
		values, err := s.Attributes(handle, pkcs11.CKA_ID, pkcs11.CKA_LABEL)
		if e := classify("", err); err != nil && (e.Class == ClassHandle || e.Class == ClassCaller) {
			continue // destroyed meanwhile, or no object of ours
		}
		if err != nil {
			return nil, err
		}
		if len(values[0]) != keyIDSize {
			continue
		}
		if id := KeyID(values[0]); string(values[1]) == keyLabel+id.String() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
