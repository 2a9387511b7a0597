package engine

import (
	"context"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

const noEncryptionKey = "encryption key not found"

var encrypt = use[kms.TransitEncryptRequest]{
	prepare: func(q *Query) (o kms.TransitEncryptRequest, err error) {
		o.Namespace, o.Key = q.Namespace, q.key()
		o.Params.Padding, err = q.padding()
		return o, err
	},
	read: func(q *Query, i *wire.Item, o *kms.TransitEncryptRequest) (err error) {
		if i.Plaintext == nil {
			return wire.Invalid("plaintext", "missing plaintext to encrypt")
		}
		if o.Plaintext, err = q.Memory.decode("plaintext", i.Plaintext); err != nil {
			return err
		}
		o.Version = i.Version
		return q.params(i, &o.Params)
	},
	operation: func(o *kms.TransitEncryptRequest) kms.Operation { return o },
	tell: func(dst []byte, response any, _ bool) []byte {
		r := response.(*kms.TransitEncryptResponse)
		return appendCiphertext(dst, r.Ciphertext, r.Version)
	},
	missing: noEncryptionKey,
	retry:   (*Engine).createMissing,
}

// appendCiphertext appends what needs no escapes in JSON: base64, and a prefix of letters.
func appendCiphertext(dst, ciphertext []byte, version uint32) []byte {
	dst = append(append(append(dst, `"ciphertext":"`...), ciphertext...), '"')
	return wire.AppendUint(append(dst, `,"key_version":`...), version)
}

// createMissing makes the key that an encryption named, where that is configured.
func (e *Engine) createMissing(ctx context.Context, q *Query) error {
	if !e.CreateOnEncrypt {
		return nil
	}
	r := q.fields()
	o := kms.TransitOptions{Type: wire.Get(r, "type", r.Text), Convergent: wire.Get(r, "convergent_encryption", r.Bool)}
	o.Derived = len(q.Request.Items[0].Context) > 0
	if r.Err != nil {
		return r.Err
	}
	_, err := e.Service.CreateKey(ctx, q.Call, kms.CreateKeyRequest{Namespace: q.Namespace, Key: q.key(), Transit: &o})
	if kms.CodeOf(err) == kms.AlreadyExists { // by somebody else, meanwhile
		return nil
	}
	return err
}

var decrypt = use[kms.TransitDecryptRequest]{
	prepare: func(q *Query) (o kms.TransitDecryptRequest, err error) {
		o.Namespace, o.Key = q.Namespace, q.key()
		o.Params.Padding, err = q.padding()
		return o, err
	},
	read: func(q *Query, i *wire.Item, o *kms.TransitDecryptRequest) error {
		if len(i.Ciphertext) == 0 {
			return wire.Invalid("ciphertext", "missing ciphertext to decrypt")
		}
		o.Ciphertext = i.Ciphertext
		return q.params(i, &o.Params)
	},
	operation: func(o *kms.TransitDecryptRequest) kms.Operation { return o },
	tell: func(dst []byte, response any, _ bool) []byte {
		return wire.AppendBase64(append(dst, `"plaintext":`...), response.(*kms.DecryptResponse).Plaintext)
	},
	failed:  `"plaintext":"",`,
	missing: noEncryptionKey,
}

var rewrap = use[kms.TransitRewrapRequest]{
	prepare: func(q *Query) (o kms.TransitRewrapRequest, err error) {
		o.Namespace, o.Key = q.Namespace, q.key()
		r := q.fields()
		o.Params.Padding = wire.Get(r, "decrypt_padding_scheme", r.Text)
		if padding := wire.Get(r, "encrypt_padding_scheme", r.Text); padding != o.Params.Padding {
			o.EncryptParams = &transit.Params{Padding: padding}
		}
		return o, r.Err
	},
	read: func(q *Query, i *wire.Item, o *kms.TransitRewrapRequest) error {
		if len(i.Ciphertext) == 0 {
			return wire.Invalid("ciphertext", "missing ciphertext to decrypt")
		}
		o.Ciphertext, o.Version = i.Ciphertext, i.Version
		if err := q.params(i, &o.Params); err != nil || o.EncryptParams == nil {
			return err
		}
		other := o.Params
		other.Padding = o.EncryptParams.Padding
		o.EncryptParams = &other
		return nil
	},
	operation: func(o *kms.TransitRewrapRequest) kms.Operation { return o },
	tell: func(dst []byte, response any, _ bool) []byte {
		r := response.(*kms.TransitEncryptResponse)
		return appendCiphertext(dst, r.Ciphertext, r.Version)
	},
	missing: noEncryptionKey,
	lenient: true,
}

func (e *Engine) dataKey(ctx context.Context, q *Query) (*wire.Answer, error) {
	kind := q.Path.Get("plaintext")
	if kind != "plaintext" && kind != "wrapped" {
		return nil, wire.Invalid("", "Invalid path, must be 'plaintext' or 'wrapped'")
	}
	r := q.fields()
	bits := wire.Get(r, "bits", r.Int)
	o := kms.TransitDataKeyRequest{Namespace: q.Namespace, Key: q.key(), Version: wire.Get(r, "key_version", r.Version), OmitPlaintext: kind == "wrapped"}
	o.Params.Context, o.Params.Nonce = wire.Get(r, "context", r.Bytes), wire.Get(r, "nonce", r.Bytes)
	o.Params.AAD, o.Params.Padding = wire.Get(r, "associated_data", r.Bytes), wire.Get(r, "padding_scheme", r.Text)
	if r.Err != nil {
		return nil, r.Err
	}
	switch bits {
	case 0:
		o.Size = 32
	case 128, 256, 512:
		o.Size = bits / 8
	default:
		return nil, wire.Invalid("bits", "invalid bit length; bits must be 128, 256 or 512")
	}
	made, err := e.Service.TransitDataKey(ctx, q.Call, &o)
	if err != nil {
		return nil, encrypt.worded(err)
	}
	raw := appendCiphertext(append(q.Memory.Raw[:0], '{'), made.Ciphertext, made.Version)
	if !o.OmitPlaintext {
		raw = wire.AppendBase64(append(raw, `,"plaintext":`...), made.Plaintext)
		clear(made.Plaintext)
	}
	q.Memory.Raw = append(raw, '}')
	return &wire.Answer{Raw: q.Memory.Raw}, nil
}
