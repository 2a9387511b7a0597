package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// oaepRoot is an RSA-3072 pair that data keys are encrypted to (RFC 8017), and a
// companion key that proves who did so. Anybody can encrypt to a public key: without
// the companion's MAC or signature, made in the token, who can write the store could
// plant a secret of his own.
type oaepRoot struct {
	hash    crypto.Hash // SHA-256, or SHA-1 where the token does no other
	proof   byte        // proofHMAC or proofECDSA
	implied bool        // as algorithm.Recipe.Implied
}

// Kinds of proof.
const (
	proofHMAC  = 0x01 // HMAC-SHA-256, 32 bytes
	proofECDSA = 0x02 // ECDSA P-256 over SHA-256, r ‖ s, 64 bytes
)

var oaepHashCodes = map[crypto.Hash]byte{crypto.SHA256: 0x01, crypto.SHA1: 0x02}

func (k oaepRoot) code() []byte {
	return []byte{byte(MechanismRSAOAEP), oaepHashCodes[k.hash], k.proof}
}

// newOAEPRoots are the kinds that the token's list of mechanisms allows.
func (d *Device) newOAEPRoots() (kinds []rootKind) {
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA1} {
		for _, proof := range []byte{proofHMAC, proofECDSA} {
			k := oaepRoot{hash: hash, proof: proof, implied: d.able.implied}
			if len(d.able.recipes(k.pair())) > 0 && len(d.able.recipes(k.companion())) > 0 {
				kinds = append(kinds, k)
			}
		}
	}
	return kinds
}

// row is a row of the table that is there.
func row(name string) *algorithm.Algorithm {
	r, ok := algorithm.Lookup(name)
	if !ok {
		panic("hsm: no algorithm " + name) // a bug here, never input
	}
	return r
}

func (k oaepRoot) pair() *algorithm.Algorithm {
	if k.hash == crypto.SHA1 {
		return row("RSA_OAEP_3072_SHA1")
	}
	return row("RSA_OAEP_3072_SHA256")
}

func (k oaepRoot) companion() *algorithm.Algorithm {
	if k.proof == proofECDSA {
		return row(algorithm.ECDSAP256)
	}
	return row("HMAC_SHA256")
}

func (k oaepRoot) make(s *session, id KeyID) error {
	if err := s.makeRow(k.companion(), companionID(id), rootLabel(id)+" (proof)", k.implied); err != nil {
		return err
	}
	return s.makeRow(k.pair(), id, rootLabel(id), k.implied)
}

// oaepKeys are the parts of a root in use.
type oaepKeys struct {
	private, companion cryptoki.Handle
	public             *rsa.PublicKey
	verifier           *ecdsa.PublicKey // nil for HMAC
}

func (k oaepRoot) keys(s *session, id KeyID) (keys oaepKeys, err error) {
	pair, companion := k.pair(), k.companion()
	if keys.private, err = s.protected(pair.Object(id), id); err != nil {
		return keys, err
	}
	if keys.companion, err = s.protected(companion.Object(companionID(id)), id); err != nil {
		return keys, err
	}
	public, err := s.publicOf(pair, id)
	if err != nil {
		return keys, err
	}
	keys.public, _ = public.(*rsa.PublicKey)
	if k.proof == proofECDSA {
		if public, err = s.publicOf(companion, companionID(id)); err != nil {
			return keys, err
		}
		keys.verifier, _ = public.(*ecdsa.PublicKey)
	}
	return keys, nil
}

// publicOf reads a public key of a root from the token.
func (s *session) publicOf(row *algorithm.Algorithm, id KeyID) (crypto.PublicKey, error) {
	object, err := s.Find(row.PublicObject(id))
	if errors.Is(err, cryptoki.ErrAbsent) {
		return nil, fault(ClassDevice, errors.New("the root's public key is gone"))
	}
	if err != nil {
		return nil, err
	}
	values, err := s.Attributes(object, row.Attributes()...)
	if err != nil {
		return nil, err
	}
	return row.Read(values)
}

// size implements rootKind.
func (oaepRoot) size() int { return identitySize }

// prove identifies the root by its public key, and the companion by its own or by a
// MAC of a label.
func (k oaepRoot) prove(s *session, id KeyID, _ []byte) ([]byte, error) {
	keys, err := k.keys(s, id)
	if err != nil {
		return nil, err
	}
	label := sha256.Sum256([]byte("keywright root key check value 3"))
	proof, err := k.sign(s, keys, label)
	if err != nil {
		return nil, err
	}
	data := newDataKey()
	opened, err := k.decrypt(s, keys, data)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(data, opened) != 1 || !k.verify(s, keys, label, proof) {
		return nil, fault(ClassDevice, errors.New("canary came back changed"))
	}
	if keys.verifier != nil {
		if proof, err = x509.MarshalPKIXPublicKey(keys.verifier); err != nil {
			return nil, err
		}
	}
	public, err := x509.MarshalPKIXPublicKey(keys.public)
	identity := sha256.Sum256(slices.Concat(public, proof))
	return identity[:identitySize], err
}

// decrypt encrypts a data key to the root, and opens it in the token.
func (k oaepRoot) decrypt(s *session, keys oaepKeys, data []byte) ([]byte, error) {
	wrapped, err := rsa.EncryptOAEP(k.hash.New(), rand.Reader, keys.public, data, nil)
	if err != nil {
		return nil, err
	}
	return s.Decrypt(keys.private, cryptoki.OAEP(k.hash, nil), wrapped, keys.public.Size())
}

// sign makes the proof of a digest.
func (k oaepRoot) sign(s *session, keys oaepKeys, digest [sha256.Size]byte) ([]byte, error) {
	companion := k.companion()
	if k.proof == proofHMAC {
		return s.Sign(keys.companion, cryptoki.Plain(companion.Use), digest[:], sha256.Size)
	}
	return s.Sign(keys.companion, companion.Signing.Mechanism(), companion.Signing.Input(digest[:]), companion.Signing.Size())
}

// verify checks the proof of a digest. A token that fails at it has not verified.
func (k oaepRoot) verify(s *session, keys oaepKeys, digest [sha256.Size]byte, proof []byte) bool {
	if k.proof == proofHMAC {
		again, err := k.sign(s, keys, digest)
		return err == nil && subtle.ConstantTimeCompare(again, proof) == 1
	}
	companion := k.companion()
	if len(proof) != companion.Signing.Size() {
		return false
	}
	signature, err := companion.Signing.Encode(proof)
	return err == nil && companion.Signing.Verify(keys.verifier, digest[:], signature)
}

func (k oaepRoot) wrap(s *session, blob *BlobInfo, plaintext, aad []byte) error {
	keys, err := k.keys(s, blob.Root)
	if err != nil {
		return gone(err)
	}
	data := newDataKey()
	defer clear(data)
	if blob.WrappedKey, err = rsa.EncryptOAEP(k.hash.New(), rand.Reader, keys.public, data, nil); err != nil {
		return err
	}
	if err := blob.sealWith(data, plaintext, aad); err != nil {
		return err
	}
	blob.Proof, err = k.sign(s, keys, blob.digest(aad))
	return err
}

// errForged means that a blob's proof is not the token's.
var errForged = errors.New("proof does not verify")

func (k oaepRoot) unwrap(s *session, blob BlobInfo, aad []byte) ([]byte, error) {
	keys, err := k.keys(s, blob.Root)
	if err != nil {
		return nil, gone(err)
	}
	if !k.verify(s, keys, blob.digest(aad), blob.Proof) {
		return nil, errForged
	}
	data, err := s.Decrypt(keys.private, cryptoki.OAEP(k.hash, nil), blob.WrappedKey, keys.public.Size())
	if err != nil {
		return nil, err
	}
	defer clear(data)
	return blob.openWith(data, aad)
}

// gone makes the absence of a known root the token's fault, not the caller's.
func gone(err error) error {
	if errors.Is(err, ErrRootNotFound) {
		return fault(ClassDevice, err)
	}
	return err
}

// digest is what the proof is over: a hash of all else, so that no token's limit on
// lengths matters.
func (b *BlobInfo) digest(aad []byte) [sha256.Size]byte {
	body, bound := sha256.Sum256(b.Ciphertext), sha256.Sum256(b.bound(aad))
	return sha256.Sum256(slices.Concat([]byte("keywright root blob 1"), bound[:], body[:]))
}
