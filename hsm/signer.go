package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// Names of signature algorithms, as in Signer.
const (
	Ed25519   = algorithm.Ed25519
	ECDSAP256 = algorithm.ECDSAP256
)

// signerAlgorithms are those of signers, the preferred first.
var signerAlgorithms = lookUp(Ed25519, ECDSAP256)

func lookUp(names ...string) (rows []*algorithm.Algorithm) {
	for _, name := range names {
		row, ok := algorithm.Lookup(name)
		if !ok {
			panic("hsm: no algorithm " + name) // a bug here, never input
		}
		rows = append(rows, row)
	}
	return rows
}

const signerLabel = "keywright signer "

func (k heldKey) signer() Signer {
	return Signer{ID: k.ID, Algorithm: k.Algorithm, PublicKey: k.public}
}

// GenerateSigner implements Service.
func (d *Device) GenerateSigner(ctx context.Context) (Signer, error) {
	return d.GenerateSignerAs(ctx, newKeyID())
}

// GenerateSignerAs is GenerateSigner under an id that the caller chose, as for
// GenerateRootAs. What the token lists but cannot do is passed over.
func (d *Device) GenerateSignerAs(ctx context.Context, id KeyID) (Signer, error) {
	const op = "generate signer"
	err := classify(op, ErrNoSigningMechanism)
	for _, row := range signerAlgorithms {
		if !slices.Contains(d.capabilities.Signing, row.Name) {
			continue
		}
		recipes := d.able.recipes(row)
		m := generator(id, row, signerLabel)
		pair, failure := create(ctx, d, op, func(s *session, sent *atomic.Bool) (heldKey, error) {
			return s.make(m, recipes, sent)
		})
		if failure == nil {
			d.rememberSigner(pair)
			return pair.signer(), nil
		}
		if e := classify(op, failure); e.Class != ClassCaller || ctx.Err() != nil {
			return Signer{ID: id}, e
		}
		err = classify(op, errors.Join(ErrNoSigningMechanism, failure))
	}
	return Signer{}, err
}

// FindSigner implements Service.
func (d *Device) FindSigner(ctx context.Context, id KeyID) (Signer, error) {
	pair, err := call(ctx, d, "find signer", func(s *session) (heldKey, error) { return s.readSigner(id) })
	if err != nil {
		return Signer{}, err
	}
	d.rememberSigner(pair)
	return pair.signer(), nil
}

// readSigner reads a key pair: ErrSignerNotFound, ErrDuplicateObject, ErrUnprotected.
func (s *session) readSigner(id KeyID) (pair heldKey, err error) {
	for _, row := range signerAlgorithms {
		pair, err = s.read(id, row)
		if !errors.Is(err, algorithm.ErrOther) {
			break
		}
	}
	if errors.Is(err, cryptoki.ErrAbsent) || errors.Is(err, algorithm.ErrOther) {
		err = fmt.Errorf("%w: %s: %w", ErrSignerNotFound, id, err)
	}
	return pair, err
}

func (d *Device) rememberSigner(pair heldKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.signers[pair.ID] = pair
}

func (d *Device) knownSigner(id KeyID) (heldKey, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	pair, ok := d.signers[id]
	return pair, ok
}

// Sign implements Service. The signer must have been generated or found through
// this Device.
func (d *Device) Sign(ctx context.Context, signer KeyID, message []byte) ([]byte, error) {
	if len(message) > MaxMessage {
		return nil, classify("sign", fmt.Errorf("%w: message of %d bytes, want at most %d", ErrInvalidArgument, len(message), MaxMessage))
	}
	pair, ok := d.knownSigner(signer)
	if !ok {
		return nil, classify("sign", fmt.Errorf("%w: %s was neither generated nor found on this token", ErrSignerNotFound, signer))
	}
	message = bytes.Clone(message) // the call may outlast us
	return call(ctx, d, "sign", func(s *session) ([]byte, error) {
		signature, err := s.signature(pair, pair.row.Digest(message))
		if errors.Is(err, cryptoki.ErrAbsent) {
			err = fault(ClassDevice, fmt.Errorf("%w: %s", ErrSignerNotFound, signer))
		}
		if errors.Is(err, ErrDuplicateObject) {
			err = fault(ClassDevice, err)
		}
		return signature, err
	})
}

// signature returns a signature that it has verified: a wrong one can betray the
// key, and a token that went wrong is not believed.
func (s *session) signature(k heldKey, data []byte) ([]byte, error) {
	key, err := s.Find(k.row.Object(k.ID))
	if err != nil {
		return nil, err
	}
	signing := k.row.Signing
	raw, err := s.Sign(key, signing.Mechanism(), signing.Input(data), signing.Size())
	if err != nil {
		return nil, err
	}
	if len(raw) != signing.Size() {
		return nil, fault(ClassDevice, fmt.Errorf("token returned a signature of %d bytes, want %d", len(raw), signing.Size()))
	}
	encoded, err := signing.Encode(raw)
	if err != nil {
		return nil, err
	}
	if !signing.Verify(k.public, data, encoded) {
		s.Forget() // a handle that names another key is one way to get there
		return nil, fault(ClassDevice, errors.New("token returned a signature that does not verify"))
	}
	return encoded, nil
}
