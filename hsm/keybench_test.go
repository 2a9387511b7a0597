package hsm_test

import (
	"errors"
	"testing"

	"github.com/keywright/keywright/hsm"
)

func BenchmarkDecryptTampered(b *testing.B) {
	d, _, _ := withRoot(b)
	u := user{b, d, generate(b, d, "AES_256_GCM")}
	body := u.use(hsm.UseEncrypt, random(1024), nil)
	body[len(body)-1] ^= 1
	for b.Loop() {
		if _, err := u.try(hsm.UseDecrypt, body, nil); !errors.Is(err, hsm.ErrDecrypt) {
			b.Fatal(err)
		}
	}
}
