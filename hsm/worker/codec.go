package worker

import (
	"crypto/x509"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// settings is what a worker is told at its start.
type settings struct {
	module, initArgs, label, serial string

	maxSessions int
	timeout     time.Duration
}

func (s settings) append(to []byte) []byte {
	to = wire.AppendBytes(to, s.module)
	to = wire.AppendBytes(to, s.initArgs)
	to = wire.AppendBytes(to, s.label)
	to = wire.AppendBytes(to, s.serial)
	to = wire.AppendUint32(to, uint32(s.maxSessions))
	return wire.AppendDuration(to, s.timeout)
}

func readSettings(b *wire.Body) settings {
	return settings{b.String(), b.String(), b.String(), b.String(), int(b.Uint32()), b.Duration()}
}

func appendID(to []byte, id hsm.KeyID) []byte { return append(to, id[:]...) }

func readID(b *wire.Body) (id hsm.KeyID) {
	b.Fixed(id[:])
	return id
}

func appendRoot(to []byte, r hsm.Root) []byte {
	return wire.AppendBytes(appendID(to, r.ID), r.CheckValue)
}

func readRoot(b *wire.Body) hsm.Root { return hsm.Root{ID: readID(b), CheckValue: b.Bytes()} }

// signer is an hsm.Signer whose public key is in DER (SubjectPublicKeyInfo).
type signer struct {
	id        hsm.KeyID
	algorithm string
	public    []byte
}

func newSigner(s hsm.Signer) (signer, error) {
	public, err := x509.MarshalPKIXPublicKey(s.PublicKey)
	return signer{s.ID, s.Algorithm, public}, err
}

func (s signer) append(to []byte) []byte {
	to = appendID(to, s.id)
	to = wire.AppendBytes(to, s.algorithm)
	return wire.AppendBytes(to, s.public)
}

func readSigner(b *wire.Body) hsm.Signer {
	s := signer{readID(b), b.String(), b.Bytes()}
	public, err := x509.ParsePKIXPublicKey(s.public)
	if err != nil {
		b.Fail("public key of signer %s: %v", s.id, err)
	}
	return hsm.Signer{ID: s.id, Algorithm: s.algorithm, PublicKey: public}
}

func appendKey(to []byte, k hsm.Key) []byte {
	to = appendID(to, k.ID)
	to = wire.AppendBytes(to, k.Algorithm)
	to = wire.AppendBytes(to, k.PublicKey)
	to = wire.AppendBool(to, k.Origin.Local)
	to = wire.AppendBool(to, k.Origin.NeverExtractable)
	return wire.AppendBool(to, k.Origin.AlwaysSensitive)
}

func readKey(b *wire.Body) hsm.Key {
	return hsm.Key{ID: readID(b), Algorithm: b.String(), PublicKey: b.Bytes(),
		Origin: hsm.Origin{Local: b.Bool(), NeverExtractable: b.Bool(), AlwaysSensitive: b.Bool()}}
}

func appendIDs(to []byte, ids []hsm.KeyID) []byte {
	to = wire.AppendUint32(to, uint32(len(ids)))
	for _, id := range ids {
		to = appendID(to, id)
	}
	return to
}

func readIDs(b *wire.Body) (ids []hsm.KeyID) {
	for n := b.Uint32(); n > 0 && b.OK(); n-- {
		ids = append(ids, readID(b))
	}
	return ids
}

// appendStatus appends what does not change while a worker lives.
func appendStatus(to []byte, s hsm.Status) []byte {
	for _, text := range []string{s.Module, s.TokenLabel, s.TokenSerial, s.Manufacturer, s.Model} {
		to = wire.AppendBytes(to, text)
	}
	to = wire.AppendUint32(to, uint32(s.SessionsMax))
	to = wire.AppendBool(to, s.Capabilities.RootWrap)
	for _, names := range [][]string{s.Capabilities.Signing, s.Capabilities.Keys} {
		to = append(to, byte(len(names)))
		for _, name := range names {
			to = wire.AppendBytes(to, name)
		}
	}
	return to
}

func readStatus(b *wire.Body) (s hsm.Status) {
	for _, text := range []*string{&s.Module, &s.TokenLabel, &s.TokenSerial, &s.Manufacturer, &s.Model} {
		*text = b.String()
	}
	s.SessionsMax = int(b.Uint32())
	if s.SessionsMax < 1 || s.SessionsMax > maxSessions {
		b.Fail("%d sessions, want 1 to %d", s.SessionsMax, maxSessions)
	}
	s.Capabilities.RootWrap = b.Bool()
	for _, names := range []*[]string{&s.Capabilities.Signing, &s.Capabilities.Keys} {
		for n := b.Byte(); n > 0 && b.OK(); n-- {
			*names = append(*names, b.String())
		}
	}
	return s
}
