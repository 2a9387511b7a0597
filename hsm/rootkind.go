package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// rootKind is how root keys of one mechanism are made and used, where that is not
// AES-GCM. Methods that are told of a session run on the token.
type rootKind interface {
	// code begins the check values of such roots, and tells them apart.
	code() []byte
	// size is that of the part of a check value which identifies the key.
	size() int
	// make makes what a root consists of.
	make(s *session, id KeyID) error
	// prove finds what a root consists of, tries it, and returns what identifies it;
	// known is what is expected, nil for a new root: ErrRootNotFound, ErrWrongRoot,
	// ErrDuplicateObject, ErrUnprotected.
	prove(s *session, id KeyID, known []byte) (identity []byte, err error)
	// wrap and unwrap work on a blob's parts.
	wrap(s *session, blob *BlobInfo, plaintext, aad []byte) error
	unwrap(s *session, blob BlobInfo, aad []byte) ([]byte, error)
}

// identitySize is that of the hash which identifies a key, cut short.
const identitySize = tagSize

// kindOf returns the kind of root that a check value speaks of; nil is AES-GCM, whose
// check values are a tag and nothing else.
func (d *Device) kindOf(checkValue []byte) (rootKind, error) {
	if len(checkValue) == tagSize {
		return nil, nil
	}
	for _, kind := range d.rootKinds() {
		if kind != nil && len(checkValue) == len(kind.code())+kind.size() && bytes.HasPrefix(checkValue, kind.code()) {
			return kind, nil
		}
	}
	return nil, fmt.Errorf("%w: check value of %d bytes is of no known kind", ErrInvalidArgument, len(checkValue))
}

// rootKinds are all kinds that there are.
func (d *Device) rootKinds() []rootKind {
	kinds := []rootKind{nil, hsmIVRoot{}, kwRoot{}}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA1} {
		for _, proof := range []byte{proofHMAC, proofECDSA} {
			kinds = append(kinds, oaepRoot{hash: hash, proof: proof, implied: d.able.implied})
		}
	}
	return kinds
}

// newRootKinds are the kinds that a new root may have on this token, the preferred
// first: as the profile says, as far as the list of mechanisms allows it.
func (d *Device) newRootKinds() []rootKind {
	order := d.profile.RootWrap.Is
	if d.config.rootWrap != 0 {
		order = []Mechanism{d.config.rootWrap}
	}
	var kinds []rootKind
	for _, m := range order {
		switch m {
		case MechanismAESGCM:
			if len(d.able.recipes(rootAlgorithm)) > 0 {
				kinds = append(kinds, nil)
			}
		case MechanismAESGCMHSMIV:
			if d.able.hsmIV && len(d.able.recipes(rootAlgorithm)) > 0 {
				kinds = append(kinds, hsmIVRoot{})
			}
		case MechanismAESKW:
			if d.able.has(pkcs11.CKM_AES_KEY_WRAP) && d.able.has(pkcs11.CKM_AES_KEY_GEN) {
				kinds = append(kinds, kwRoot{})
			}
		case MechanismRSAOAEP:
			kinds = append(kinds, d.newOAEPRoots()...)
		}
	}
	return kinds
}

// generateKind makes a root of a kind, and removes what does not work.
func (s *session) generateKind(kind rootKind, id KeyID, sent *atomic.Bool) (Root, error) {
	present, err := s.Present(id)
	if err == nil && present && !sent.Load() {
		err = fmt.Errorf("%w: %s", ErrDuplicateObject, id)
	}
	if err != nil {
		return Root{}, err
	}
	root, err := s.rootOf(kind, id, nil)
	if !errors.Is(err, ErrRootNotFound) {
		return root, err // an earlier attempt of the same call made it
	}
	if _, err := s.destroyRoot(id); err != nil { // half of it
		return Root{}, err
	}
	sent.Store(true)
	if err = kind.make(s, id); err == nil {
		root, err = s.rootOf(kind, id, nil)
	}
	if err != nil && classify("", err).Class == ClassCaller {
		if _, failure := s.destroyRoot(id); failure == nil {
			sent.Store(false) // a refusal is an outcome
		}
	}
	return root, err
}

// rootOf describes a root that is there, or one of which the identity is known.
func (s *session) rootOf(kind rootKind, id KeyID, known []byte) (Root, error) {
	identity, err := kind.prove(s, id, known)
	return Root{ID: id, CheckValue: slices.Concat(kind.code(), identity)}, err
}

// checkKind is check for a kind of root.
func (s *session) checkKind(kind rootKind, want Root) error {
	got, err := s.rootOf(kind, want.ID, want.CheckValue[len(kind.code()):])
	if err == nil && subtle.ConstantTimeCompare(got.CheckValue, want.CheckValue) != 1 {
		err = fmt.Errorf("%w: %s", ErrWrongRoot, want.ID)
	}
	return err
}

// protected finds one key of a root.
func (s *session) protected(o cryptoki.Object, root KeyID) (cryptoki.Handle, error) {
	key, err := s.Find(o)
	if errors.Is(err, cryptoki.ErrAbsent) {
		return 0, fmt.Errorf("%w: %s", ErrRootNotFound, root)
	}
	if err == nil {
		err = s.Protected(key)
	}
	return key, err
}

// makeRow makes a key of the table as a part of a root.
func (s *session) makeRow(row *algorithm.Algorithm, id KeyID, label string, implied bool) error {
	recipe := row.Recipes[0]
	recipe.Implied = implied
	public, private := row.Templates(id, label, recipe)
	if row.Pair() {
		return s.GeneratePair(id, recipe.Generate, public, private)
	}
	_, err := s.Generate(row.Object(id), recipe.Generate, private)
	return err
}

// companionID is the id of the key that goes with a root's, where there is one.
func companionID(root KeyID) KeyID {
	sum := sha256.Sum256(append([]byte("keywright root companion 1"), root[:]...))
	return KeyID(sum[:keyIDSize])
}

// destroyRoot removes all that may belong to a root.
func (s *session) destroyRoot(id KeyID) (removed int, err error) {
	companions, err := s.Destroy(companionID(id))
	if err != nil {
		return companions, err
	}
	removed, err = s.Destroy(id)
	return removed + companions, err
}

// generateFirst makes a root of the first kind that the token really can do.
func (d *Device) generateFirst(ctx context.Context, id KeyID) (root Root, err error) {
	const op = "generate root"
	err = classify(op, ErrNoWrapMechanism)
	for _, kind := range d.newRootKinds() {
		timeout := d.config.Timeout
		if _, slow := kind.(oaepRoot); slow {
			timeout = max(timeout, slowGeneration)
		}
		root, err = createWithin(ctx, d, timeout, op, func(s *session, sent *atomic.Bool) (Root, error) {
			if kind == nil {
				return s.generateRoot(id, sent)
			}
			return s.generateKind(kind, id, sent)
		})
		if err == nil || !inability(err) {
			return root, err
		}
	}
	return root, err
}

// mechanismOf is the mechanism of a kind's blobs.
func mechanismOf(kind rootKind) Mechanism {
	if kind == nil {
		return MechanismAESGCM
	}
	return Mechanism(kind.code()[0])
}
