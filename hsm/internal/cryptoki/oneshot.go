package cryptoki

/*
#cgo noescape kw_run
#cgo noescape kw_agree
#cgo noescape kw_create
#include "oneshot.h"
*/
import "C"

import (
	"unsafe"

	"github.com/miekg/pkcs11"
)

// This file makes the calls that use a key, and those that carry a secret.
// miekg/pkcs11 asks for each output's length first, which costs a round trip and
// which some modules refuse; it does not free its output buffer, of the
// plaintext's size, when a decryption fails; and it leaves copies of secrets in C
// memory. Here the module reads and writes Go's memory, and no copy is made.

// parameters tells what kw_run makes of its arguments.
type parameters C.int

const (
	gcmParameters  parameters = C.KW_GCM
	pssParameters  parameters = C.KW_PSS
	oaepParameters parameters = C.KW_OAEP
)

// functions is a module's CK_FUNCTION_LIST, in C memory that is never freed.
type functions struct{ list unsafe.Pointer }

// functionsOf returns the list that miekg/pkcs11 works with and keeps to itself: a
// Ctx is a pointer to a library's handle and the list. Asking the library once more
// will not do, because p11-kit's client makes a new instance of itself each time.
func functionsOf(p11 *pkcs11.Ctx) (functions, bool) {
	type context struct{ library, list unsafe.Pointer } // struct ctx of miekg/pkcs11
	list := (*(**context)(unsafe.Pointer(p11))).list
	if list == nil {
		return functions{}, false
	}
	major := *(*C.kw_byte)(list) // of the version that it implements, its first byte
	return functions{list}, major == 2 || major == 3
}

// Encrypt encrypts, and returns at most size bytes.
func (s *Session) Encrypt(key Handle, m Mechanism, plaintext []byte, size int) ([]byte, error) {
	return s.run(C.KW_ENCRYPT, key, m, plaintext, make([]byte, size))
}

// EncryptInto is Encrypt into a buffer that is large enough, of which it returns the
// part that was filled.
func (s *Session) EncryptInto(out []byte, key Handle, m Mechanism, plaintext []byte) ([]byte, error) {
	return s.run(C.KW_ENCRYPT, key, m, plaintext, out)
}

// Decrypt decrypts, and returns at most size bytes. A bad ciphertext and a sick
// device may give the same error.
func (s *Session) Decrypt(key Handle, m Mechanism, ciphertext []byte, size int) ([]byte, error) {
	return s.run(C.KW_DECRYPT, key, m, ciphertext, make([]byte, size))
}

// Sign signs, or makes a MAC, and returns at most size bytes as the token made them.
func (s *Session) Sign(key Handle, m Mechanism, data []byte, size int) ([]byte, error) {
	return s.run(C.KW_SIGN, key, m, data, make([]byte, size))
}

func (s *Session) run(operation C.int, key Handle, m Mechanism, in, out []byte) ([]byte, error) {
	a, aSize := cBytes(m.a)
	b, bSize := cBytes(m.b)
	from, fromSize := cBytes(in)
	to, toSize := cBytes(out)
	result := C.kw_run(s.module.functions.list, operation, C.kw_ulong(s.handle), C.kw_ulong(key),
		C.kw_ulong(m.number), C.int(m.parameters), C.kw_ulong(m.numbers[0]), C.kw_ulong(m.numbers[1]), C.kw_ulong(m.numbers[2]),
		a, aSize, b, bSize, from, fromSize, to, toSize)
	if result.rv != pkcs11.CKR_OK {
		clear(out)
		return nil, pkcs11.Error(result.rv)
	}
	return out[:result.value], nil
}

// Agree derives size bytes of a shared secret with a peer's public key
// (CKM_ECDH1_DERIVE or its like, PKCS#11 v2.40 section 2.3.8), without a key
// derivation function.
func (s *Session) Agree(key Handle, mechanism uint, peer []byte, size int) ([]byte, error) {
	secret := make([]byte, size)
	from, fromSize := cBytes(peer)
	to, toSize := cBytes(secret)
	result := C.kw_agree(s.module.functions.list, C.kw_ulong(s.handle), C.kw_ulong(key), C.kw_ulong(mechanism), from, fromSize, to, toSize)
	if result.rv != pkcs11.CKR_OK {
		clear(secret)
		return nil, pkcs11.Error(result.rv)
	}
	return secret[:result.value], nil
}

// Create makes an object of a template (C_CreateObject), which may hold a secret.
func (s *Session) Create(template []*pkcs11.Attribute) (Handle, error) {
	defer s.module.changes.change()()
	flat := flatten(template)
	defer clear(flat)
	from, size := cBytes(flat)
	result := C.kw_create(s.module.functions.list, C.kw_ulong(s.handle), from, size)
	if result.rv != pkcs11.CKR_OK {
		return 0, pkcs11.Error(result.rv)
	}
	return Handle(result.value), nil
}

// flatten lays out a template as kw_create takes it. The bytes are aligned like
// words.
func flatten(template []*pkcs11.Attribute) []byte {
	const word = 8
	size := 0
	for _, a := range template {
		size += 2 + (len(a.Value)+word-1)/word
	}
	words := make([]uint64, size)
	flat := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), size*word)
	at := 0
	for _, a := range template {
		words[at], words[at+1] = uint64(a.Type), uint64(len(a.Value))
		copy(flat[(at+2)*word:], a.Value)
		at += 2 + (len(a.Value)+word-1)/word
	}
	return flat
}

// cBytes is a slice's memory as C sees it, for the time of one call.
func cBytes(b []byte) (*C.kw_byte, C.kw_ulong) {
	return (*C.kw_byte)(unsafe.SliceData(b)), C.kw_ulong(len(b))
}
