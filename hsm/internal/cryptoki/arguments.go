package cryptoki

import (
	"runtime"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// arguments are a module's own initialise arguments, as it gets them: a C string.
// A module may keep the pointer for good, so what was given to one stays pinned as
// long as the process lives, as the module does. The zero value has none.
type arguments struct {
	value  string
	text   []byte // value with its NUL, pinned
	pinner runtime.Pinner
}

func (a *arguments) set(value string) {
	if value == a.value {
		return
	}
	a.value, a.text = value, append([]byte(value), 0)
	a.pinner.Pin(&a.text[0])
}

func (a *arguments) options() []pkcs11.InitializeOption {
	if a.value == "" {
		return nil
	}
	return []pkcs11.InitializeOption{pkcs11.InitializeWithReserved(unsafe.Pointer(&a.text[0]))} //nolint:gosec // pinned C string
}
