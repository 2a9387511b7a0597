package engine

import (
	"context"
	"encoding/base64"
	"encoding/hex"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

// hashAlgorithm is that of the path, else hash_algorithm, else algorithm, its older name.
func (q *Query) hashAlgorithm() (string, error) {
	if name := q.Path.Get("algorithm"); name != "" {
		return name, nil
	}
	name, err := q.Request.Fields.Text("hash_algorithm")
	if name == "" && err == nil {
		name, err = q.Request.Fields.Text("algorithm")
	}
	return name, err
}

// input decodes an item's input, which must be there.
func (q *Query) input(i *wire.Item) ([]byte, error) {
	if i.Input == nil {
		return nil, wire.Invalid("input", "missing input")
	}
	return q.Memory.decode("input", i.Input)
}

func (q *Query) signOptions() (o transit.SignOptions, err error) {
	r := q.fields()
	o = transit.SignOptions{Prehashed: wire.Get(r, "prehashed", r.Bool), Algorithm: wire.Get(r, "signature_algorithm", r.Text),
		Marshaling: wire.Get(r, "marshaling_algorithm", r.Text), SaltLength: wire.Get(r, "salt_length", r.Text)}
	if r.Err != nil {
		return o, r.Err
	}
	o.HashAlgorithm, err = q.hashAlgorithm()
	return o, err
}

var sign = use[kms.TransitSignRequest]{
	prepare: func(q *Query) (o kms.TransitSignRequest, err error) {
		o.Namespace, o.Key = q.Namespace, q.key()
		if o.Version, err = q.Request.Fields.Version("key_version"); err != nil {
			return o, err
		}
		o.Options, err = q.signOptions()
		return o, err
	},
	read: func(q *Query, i *wire.Item, o *kms.TransitSignRequest) (err error) {
		if o.Message, err = q.input(i); err != nil {
			return err
		}
		if i.Version != 0 {
			o.Version = i.Version
		}
		o.Options.Context, err = q.Memory.decode("context", i.Context)
		return err
	},
	operation: func(o *kms.TransitSignRequest) kms.Operation { return o },
	tell: func(dst []byte, response any, batch bool) []byte {
		r := response.(*kms.TransitSignResponse)
		dst = wire.AppendText(append(dst, `"signature":`...), r.Signature)
		dst = wire.AppendUint(append(dst, `,"key_version":`...), r.Version)
		if r.PublicKey == nil {
			return dst
		}
		name := `,"public_key":`
		if batch {
			name = `,"publickey":` // so it is there
		}
		return wire.AppendBase64(append(dst, name...), r.PublicKey)
	},
	failed:  `"key_version":0,`,
	missing: "signing key not found",
	lenient: true,
}

func (e *Engine) verify(ctx context.Context, q *Query) (*wire.Answer, error) {
	signatures, hmacs := 0, 0
	for i := range q.Request.Items {
		if q.Request.Items[i].Signature != nil {
			signatures++
		}
		if q.Request.Items[i].HMAC != nil {
			hmacs++
		}
	}
	switch all := len(q.Request.Items); {
	case all > 0 && signatures == all && hmacs == 0:
		return verifySignature.serve(ctx, e, q)
	case all > 0 && hmacs == all && signatures == 0:
		return verifyHMAC.serve(ctx, e, q)
	case !q.Request.Batch && signatures > 0:
		return nil, wire.Invalid("", "provide one of 'signature' or 'hmac'")
	case !q.Request.Batch:
		return nil, wire.Invalid("", "neither a 'signature' nor an 'hmac' were given to verify")
	case all == 0:
		return nil, q.Request.Limit()
	case signatures == 0 && hmacs == 0:
		return nil, wire.Invalid("", "no batch_input elements have 'signature' or 'hmac'")
	case hmacs == 0:
		return nil, wire.Invalid("", "some elements of batch_input are missing 'signature'")
	case signatures == 0:
		return nil, wire.Invalid("", "some elements of batch_input are missing 'hmac'")
	}
	return nil, wire.Invalid("", "elements of batch_input must all provide 'signature' or all provide 'hmac'")
}

func tellValid(dst []byte, response any, _ bool) []byte {
	if response.(*kms.VerifyResponse).Valid {
		return append(dst, `"valid":true`...)
	}
	return append(dst, `"valid":false`...)
}

var verifySignature = use[kms.TransitVerifyRequest]{
	prepare: func(q *Query) (o kms.TransitVerifyRequest, err error) {
		o.Namespace, o.Key = q.Namespace, q.key()
		o.Options, err = q.signOptions()
		return o, err
	},
	read: func(q *Query, i *wire.Item, o *kms.TransitVerifyRequest) (err error) {
		if o.Message, err = q.input(i); err != nil {
			return err
		}
		o.Signature = i.Signature
		o.Options.Context, err = q.Memory.decode("context", i.Context)
		return err
	},
	operation: func(o *kms.TransitVerifyRequest) kms.Operation { return o },
	tell:      tellValid,
	failed:    `"valid":false,`,
	missing:   "signature verification key not found",
	lenient:   true,
}

var verifyHMAC = use[kms.TransitVerifyHMACRequest]{
	prepare: func(q *Query) (o kms.TransitVerifyHMACRequest, err error) {
		o.Namespace, o.Key = q.Namespace, q.key()
		o.Hash, err = q.hashAlgorithm()
		return o, err
	},
	read: func(q *Query, i *wire.Item, o *kms.TransitVerifyHMACRequest) (err error) {
		o.Message, err = q.input(i)
		o.HMAC = i.HMAC
		return err
	},
	operation: func(o *kms.TransitVerifyHMACRequest) kms.Operation { return o },
	tell:      tellValid,
	failed:    `"valid":false,`,
	missing:   noEncryptionKey,
	lenient:   true,
}

var hmac = use[kms.TransitHMACRequest]{
	prepare: func(q *Query) (o kms.TransitHMACRequest, err error) {
		o.Namespace, o.Key = q.Namespace, q.key()
		if o.Version, err = q.Request.Fields.Version("key_version"); err != nil {
			return o, err
		}
		o.Hash, err = q.hashAlgorithm()
		return o, err
	},
	read: func(q *Query, i *wire.Item, o *kms.TransitHMACRequest) (err error) {
		if i.Version != 0 {
			o.Version = i.Version
		}
		o.Message, err = q.input(i)
		return err
	},
	operation: func(o *kms.TransitHMACRequest) kms.Operation { return o },
	tell: func(dst []byte, response any, _ bool) []byte {
		return wire.AppendText(append(dst, `"hmac":`...), response.(*kms.TransitHMACResponse).HMAC)
	},
	missing: noEncryptionKey,
	lenient: true,
}

func (e *Engine) random(ctx context.Context, q *Query) (*wire.Answer, error) {
	r := q.fields()
	size, source, format := wire.Get(r, "bytes", r.Int), wire.Get(r, "source", r.Text), wire.Get(r, "format", r.Text)
	if r.Err != nil {
		return nil, r.Err
	}
	path := wire.Fields{"bytes": q.Path.Get("bytes")}
	if q.Path.Get("bytes") == "platform" || q.Path.Get("bytes") == "seal" || q.Path.Get("bytes") == "all" { // random/:source
		path = wire.Fields{}
	}
	if path.Has("bytes") && q.Path.Get("bytes") != "" {
		var err error
		if size, err = path.Int("bytes"); err != nil {
			return nil, err
		}
	} else if size == 0 && !r.Has("bytes") {
		size = 32
	}
	if given := q.Path.Get("source"); given != "" {
		source = given
	}
	switch source {
	case "", "platform", "seal", "all": // the core mixes the HSM's randomness with the platform's
	default:
		return nil, wire.Invalid("source", "unsupported entropy source %q; must be \"platform\", \"seal\" or \"all\"", source)
	}
	if format != "" && format != "base64" && format != "hex" {
		return nil, wire.Invalid("format", "unsupported encoding format %q; must be \"hex\" or \"base64\"", format)
	}
	made, err := e.Service.GenerateRandom(ctx, q.Call, &kms.GenerateRandomRequest{Namespace: q.Namespace, Size: size})
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Data: map[string]any{"random_bytes": encoded(made.Data, format == "hex")}}, nil
}

func encoded(b []byte, inHex bool) string {
	if inHex {
		return hex.EncodeToString(b)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// hash needs no key and no right, and so leaves no audit line.
func (e *Engine) hash(_ context.Context, q *Query) (*wire.Answer, error) {
	if !q.fields().Has("input") && q.Request.Items[0].Input == nil {
		return nil, wire.Invalid("input", "input missing")
	}
	q.Memory.reserve(q.Request.Items[:1])
	input, err := q.input(&q.Request.Items[0])
	if err != nil {
		return nil, err
	}
	name := q.Path.Get("algorithm")
	r := q.fields()
	if given := wire.Get(r, "algorithm", r.Text); name == "" {
		name = given
	}
	format := wire.Get(r, "format", r.Text)
	if r.Err != nil {
		return nil, r.Err
	}
	if format != "" && format != "hex" && format != "base64" {
		return nil, wire.Invalid("format", "unsupported encoding format %s; must be \"hex\" or \"base64\"", format)
	}
	sum, err := transit.Hash(name, input)
	if err != nil {
		return nil, wire.Invalid("algorithm", "unsupported algorithm %q", name)
	}
	return &wire.Answer{Data: map[string]any{"sum": encoded(sum, format != "base64")}}, nil
}
