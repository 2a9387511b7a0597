package worker

import (
	"context"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// result appends what a call returns.
type result func(to []byte) []byte

// perform makes a call whose arguments were read.
type perform func(ctx context.Context, d service) (result, error)

// handlers reads the arguments of each method, without reaching the device: the
// error is wire.ErrNonsense.
var handlers = map[method]func(*wire.Body) (perform, error){
	// id: root
	methodGenerateRoot: func(b *wire.Body) (perform, error) {
		id := readID(b)
		return func(ctx context.Context, d service) (result, error) {
			root, err := d.GenerateRootAs(ctx, id)
			return func(to []byte) []byte { return appendRoot(to, root) }, err
		}, b.Done()
	},
	// root: root
	methodFindRoot: func(b *wire.Body) (perform, error) {
		want := readRoot(b)
		return func(ctx context.Context, d service) (result, error) {
			root, err := d.FindRoot(ctx, want.ID, want.CheckValue)
			return func(to []byte) []byte { return appendRoot(to, root) }, err
		}, b.Done()
	},
	// id, version, plaintext, AAD: blob
	methodWrap: func(b *wire.Body) (perform, error) {
		id, version, plaintext, aad := readID(b), b.Uint32(), b.Bytes(), b.Bytes()
		return func(ctx context.Context, d service) (result, error) {
			blob, err := d.Wrap(ctx, id, version, plaintext, aad)
			clear(plaintext)
			return bytesResult(blob), err
		}, b.Done()
	},
	// blob, AAD: plaintext
	methodUnwrap: func(b *wire.Body) (perform, error) {
		blob, aad := b.Bytes(), b.Bytes()
		return func(ctx context.Context, d service) (result, error) {
			plaintext, err := d.Unwrap(ctx, blob, aad)
			return secretResult(plaintext), err
		}, b.Done()
	},
	// number of bytes: bytes
	methodRandom: func(b *wire.Body) (perform, error) {
		n := int(b.Uint32())
		return func(ctx context.Context, d service) (result, error) {
			random, err := d.Random(ctx, n)
			return secretResult(random), err
		}, b.Done()
	},
	// id: signer
	methodGenerateSigner: func(b *wire.Body) (perform, error) {
		id := readID(b)
		return func(ctx context.Context, d service) (result, error) {
			return signerResult(d.GenerateSignerAs(ctx, id))
		}, b.Done()
	},
	// id: signer
	methodFindSigner: func(b *wire.Body) (perform, error) {
		id := readID(b)
		return func(ctx context.Context, d service) (result, error) {
			return signerResult(d.FindSigner(ctx, id))
		}, b.Done()
	},
	// id, message: signature
	methodSign: func(b *wire.Body) (perform, error) {
		id, message := readID(b), b.Bytes()
		return func(ctx context.Context, d service) (result, error) {
			signature, err := d.Sign(ctx, id, message)
			return bytesResult(signature), err
		}, b.Done()
	},
	// nothing: nothing
	methodProbe: func(b *wire.Body) (perform, error) {
		return func(ctx context.Context, d service) (result, error) { return nil, d.Probe(ctx) }, b.Done()
	},
	// id: nothing
	methodDestroy: func(b *wire.Body) (perform, error) {
		id := readID(b)
		return func(ctx context.Context, d service) (result, error) { return nil, d.Destroy(ctx, id) }, b.Done()
	},
	// id, algorithm: key
	methodGenerateKey: func(b *wire.Body) (perform, error) {
		id, algorithm := readID(b), b.String()
		return func(ctx context.Context, d service) (result, error) {
			return keyResult(d.GenerateKey(ctx, id, algorithm))
		}, b.Done()
	},
	// id, algorithm, material: key
	methodImportKey: func(b *wire.Body) (perform, error) {
		id, algorithm, material := readID(b), b.String(), b.Bytes()
		return func(ctx context.Context, d service) (result, error) {
			defer clear(material)
			return keyResult(d.ImportKey(ctx, id, algorithm, material))
		}, b.Done()
	},
	// id, algorithm: key
	methodFindKey: func(b *wire.Body) (perform, error) {
		id, algorithm := readID(b), b.String()
		return func(ctx context.Context, d service) (result, error) {
			return keyResult(d.FindKey(ctx, id, algorithm))
		}, b.Done()
	},
	// id, algorithm, use, data, extra: bytes
	methodUseKey: func(b *wire.Body) (perform, error) {
		id, algorithm, use, data, extra := readID(b), b.String(), hsm.Use(b.Byte()), b.Bytes(), b.Bytes()
		return func(ctx context.Context, d service) (result, error) {
			got, err := d.UseKey(ctx, id, algorithm, use, data, extra)
			return secretResult(got), err
		}, b.Done()
	},
	// nothing: ids
	methodListKeys: func(b *wire.Body) (perform, error) {
		return func(ctx context.Context, d service) (result, error) {
			ids, err := d.ListKeys(ctx)
			return func(to []byte) []byte { return appendIDs(to, ids) }, err
		}, b.Done()
	},
}

func bytesResult(b []byte) result {
	return func(to []byte) []byte { return wire.AppendBytes(to, b) }
}

// secretResult overwrites the bytes once they are on their way.
func secretResult(b []byte) result {
	return func(to []byte) []byte {
		to = wire.AppendBytes(to, b)
		clear(b)
		return to
	}
}

func signerResult(s hsm.Signer, err error) (result, error) {
	if err != nil {
		return nil, err
	}
	encoded, err := newSigner(s)
	return encoded.append, err
}

func keyResult(k hsm.Key, err error) (result, error) {
	return func(to []byte) []byte { return appendKey(to, k) }, err
}
