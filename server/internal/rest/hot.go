package rest

import (
	"context"

	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/flatjson"
	"github.com/keywright/keywright/server/internal/gate"
)

// hotMethod is a method whose JSON is read and written by hand. It is a shortcut
// only: what it does not take on goes through the gateway, to the same end.
type hotMethod interface {
	// serve reads x.body and leaves the response in x.out. It reports false,
	// having done nothing, if the body is not of the plain form.
	serve(ctx context.Context, a gate.Arrival, namespace, key string, x *exchange) (handled bool, err error)
}

// hot is a hotMethod of certain messages.
type hot[Q, P any] struct {
	method *gate.Unary[Q, P]
	fields []flatjson.Field[Q]
	aim    func(q *Q, namespace, key string) // sets what the path names
	write  func([]byte, *P) []byte           // writes the response's fields
}

func (h hot[Q, P]) serve(ctx context.Context, a gate.Arrival, namespace, key string, x *exchange) (handled bool, err error) {
	q := new(Q)
	if !flatjson.Scan(&x.scanner, h.fields, x.body, q) {
		return false, nil
	}
	h.aim(q, namespace, key)
	p, err := h.method.Serve(ctx, a, q, nil)
	if err != nil {
		return true, err
	}
	x.out = flatjson.End(h.write(flatjson.Begin(x.out[:0]), p))
	return true, nil
}

func (r *rest) hotMethods() map[string]hotMethod {
	return map[string]hotMethod{
		"encrypt":         r.hotEncrypt(),
		"decrypt":         r.hotDecrypt(),
		"generateDataKey": r.hotGenerateDataKey(),
		"sign":            r.hotSign(),
		"verify":          r.hotVerify(),
		"generateMac":     r.hotGenerateMAC(),
		"verifyMac":       r.hotVerifyMAC(),
	}
}

func (r *rest) hotEncrypt() hotMethod {
	type q = pb.EncryptRequest
	return hot[q, pb.EncryptResponse]{
		method: r.api.Encrypt(),
		fields: []flatjson.Field[q]{
			flatjson.Bytes("plaintext", func(m *q) *[]byte { return &m.Plaintext }),
			flatjson.Bytes("aad", func(m *q) *[]byte { return &m.Aad }),
		},
		aim: func(m *q, namespace, key string) { m.Namespace, m.Key = namespace, key },
		write: func(dst []byte, p *pb.EncryptResponse) []byte {
			return flatjson.AppendUint32(flatjson.AppendBytes(dst, "ciphertext", p.Ciphertext), "version", p.Version)
		},
	}
}

func (r *rest) hotDecrypt() hotMethod {
	type q = pb.DecryptRequest
	return hot[q, pb.DecryptResponse]{
		method: r.api.Decrypt(),
		fields: []flatjson.Field[q]{
			flatjson.Bytes("ciphertext", func(m *q) *[]byte { return &m.Ciphertext }),
			flatjson.Bytes("aad", func(m *q) *[]byte { return &m.Aad }),
		},
		aim: func(m *q, namespace, key string) { m.Namespace, m.Key = namespace, key },
		write: func(dst []byte, p *pb.DecryptResponse) []byte {
			return flatjson.AppendUint32(flatjson.AppendBytes(dst, "plaintext", p.Plaintext), "version", p.Version)
		},
	}
}

func (r *rest) hotGenerateDataKey() hotMethod {
	type q = pb.GenerateDataKeyRequest
	return hot[q, pb.GenerateDataKeyResponse]{
		method: r.api.GenerateDataKey(),
		fields: []flatjson.Field[q]{
			flatjson.Uint32("numBytes", func(m *q) *uint32 { return &m.NumBytes }),
			flatjson.Bytes("aad", func(m *q) *[]byte { return &m.Aad }),
			flatjson.Bool("omitPlaintext", func(m *q) *bool { return &m.OmitPlaintext }),
		},
		aim: func(m *q, namespace, key string) { m.Namespace, m.Key = namespace, key },
		write: func(dst []byte, p *pb.GenerateDataKeyResponse) []byte {
			dst = flatjson.AppendBytes(flatjson.AppendBytes(dst, "plaintext", p.Plaintext), "ciphertext", p.Ciphertext)
			return flatjson.AppendUint32(dst, "version", p.Version)
		},
	}
}

func (r *rest) hotSign() hotMethod {
	type q = pb.SignRequest
	return hot[q, pb.SignResponse]{
		method: r.api.Sign(),
		fields: []flatjson.Field[q]{
			flatjson.Bytes("message", func(m *q) *[]byte { return &m.Message }),
			flatjson.Bytes("digest", func(m *q) *[]byte { return &m.Digest }),
			flatjson.Enum("format", pb.SignatureFormat_value, func(m *q) *pb.SignatureFormat { return &m.Format }),
			flatjson.Uint32("version", func(m *q) *uint32 { return &m.Version }),
		},
		aim: func(m *q, namespace, key string) { m.Namespace, m.Key = namespace, key },
		write: func(dst []byte, p *pb.SignResponse) []byte {
			return flatjson.AppendUint32(flatjson.AppendBytes(dst, "signature", p.Signature), "version", p.Version)
		},
	}
}

func (r *rest) hotVerify() hotMethod {
	type q = pb.VerifyRequest
	return hot[q, pb.VerifyResponse]{
		method: r.api.Verify(),
		fields: []flatjson.Field[q]{
			flatjson.Bytes("message", func(m *q) *[]byte { return &m.Message }),
			flatjson.Bytes("digest", func(m *q) *[]byte { return &m.Digest }),
			flatjson.Bytes("signature", func(m *q) *[]byte { return &m.Signature }),
			flatjson.Enum("format", pb.SignatureFormat_value, func(m *q) *pb.SignatureFormat { return &m.Format }),
			flatjson.Uint32("version", func(m *q) *uint32 { return &m.Version }),
		},
		aim: func(m *q, namespace, key string) { m.Namespace, m.Key = namespace, key },
		write: func(dst []byte, p *pb.VerifyResponse) []byte {
			return flatjson.AppendUint32(flatjson.AppendBool(dst, "valid", p.Valid), "version", p.Version)
		},
	}
}

func (r *rest) hotGenerateMAC() hotMethod {
	type q = pb.GenerateMacRequest
	return hot[q, pb.GenerateMacResponse]{
		method: r.api.GenerateMAC(),
		fields: []flatjson.Field[q]{
			flatjson.Bytes("message", func(m *q) *[]byte { return &m.Message }),
			flatjson.Uint32("version", func(m *q) *uint32 { return &m.Version }),
		},
		aim: func(m *q, namespace, key string) { m.Namespace, m.Key = namespace, key },
		write: func(dst []byte, p *pb.GenerateMacResponse) []byte {
			return flatjson.AppendUint32(flatjson.AppendBytes(dst, "mac", p.Mac), "version", p.Version)
		},
	}
}

func (r *rest) hotVerifyMAC() hotMethod {
	type q = pb.VerifyMacRequest
	return hot[q, pb.VerifyMacResponse]{
		method: r.api.VerifyMAC(),
		fields: []flatjson.Field[q]{
			flatjson.Bytes("message", func(m *q) *[]byte { return &m.Message }),
			flatjson.Bytes("mac", func(m *q) *[]byte { return &m.Mac }),
			flatjson.Uint32("version", func(m *q) *uint32 { return &m.Version }),
		},
		aim: func(m *q, namespace, key string) { m.Namespace, m.Key = namespace, key },
		write: func(dst []byte, p *pb.VerifyMacResponse) []byte {
			return flatjson.AppendUint32(flatjson.AppendBool(dst, "valid", p.Valid), "version", p.Version)
		},
	}
}
