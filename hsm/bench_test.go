package hsm_test

import (
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
)

// The floor: the same mechanism in a bare loop over miekg/pkcs11.
func BenchmarkBareGCM(b *testing.B) {
	_, token, root := withRoot(b)
	o := newOutsider(b, token)
	key := o.find(idAttribute(root.ID))[0]
	for b.Loop() {
		params := pkcs11.NewGCMParams(make([]byte, 12), nil, 128)
		o.must(o.p11.EncryptInit(o.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key))
		_, err := o.p11.Encrypt(o.session, make([]byte, 32))
		o.must(err)
		params.Free()
	}
}

func BenchmarkWrap(b *testing.B) {
	d, _, root := withRoot(b)
	secret := make([]byte, 32)
	for b.Loop() {
		if _, err := d.Wrap(b.Context(), root.ID, 1, secret, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnwrap(b *testing.B) {
	d, _, root := withRoot(b)
	blob := wrap(b, d, root, "a domain secret of 32 bytes ....")
	for b.Loop() {
		if _, err := d.Unwrap(b.Context(), blob, []byte("aad")); err != nil {
			b.Fatal(err)
		}
	}
}

// A flood of tampered blobs: each costs a canary.
func BenchmarkUnwrapTampered(b *testing.B) {
	d, _, root := withRoot(b)
	blob := wrap(b, d, root, "a domain secret of 32 bytes ....")
	blob[len(blob)-1] ^= 1
	for b.Loop() {
		if _, err := d.Unwrap(b.Context(), blob, []byte("aad")); err == nil {
			b.Fatal("opened")
		}
	}
}

func BenchmarkSign(b *testing.B) {
	d, _ := fresh(b)
	signer, err := d.GenerateSigner(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Run(signer.Algorithm, func(b *testing.B) { sign(b, d, signer) })
}

func sign(b *testing.B, d *hsm.Device, signer hsm.Signer) {
	message := make([]byte, 200)
	for b.Loop() {
		if _, err := d.Sign(b.Context(), signer.ID, message); err != nil {
			b.Fatal(err)
		}
	}
}
