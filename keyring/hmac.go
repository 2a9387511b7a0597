package keyring

import (
	"crypto"
	"crypto/hmac"
	"hash"
	"slices"
	"sync"
)

// macer makes full-length tags. Implementations are safe for concurrent use.
type macer interface {
	mac(message []byte) ([]byte, error)
}

// hmacKey is HMAC (FIPS 198-1). Keyed states are reused, so that the key is
// absorbed once and not per message.
type hmacKey struct{ states sync.Pool }

func newHMAC(h crypto.Hash) func(key []byte) (any, error) {
	return func(key []byte) (any, error) {
		key = slices.Clone(key)
		return &hmacKey{sync.Pool{New: func() any { return hmac.New(h.New, key) }}}, nil
	}
}

func (k *hmacKey) mac(message []byte) ([]byte, error) {
	state := k.states.Get().(hash.Hash)
	defer k.states.Put(state)
	state.Reset()
	state.Write(message)
	return state.Sum(nil), nil
}
