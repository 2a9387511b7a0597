package hsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

// goldenBlob is fixed by the format's first release: root id 00..0f, version
// 0x01020304, IV a0..ab, ciphertext c0..d0.
const goldenBlob = "0101" + "000102030405060708090a0b0c0d0e0f" + "01020304" +
	"0c" + "a0a1a2a3a4a5a6a7a8a9aaab" + "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0"

func golden(t testing.TB) []byte {
	t.Helper()
	blob, err := hex.DecodeString(goldenBlob)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func TestParseBlobGolden(t *testing.T) {
	info, err := ParseBlob(golden(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mechanism != MechanismAESGCM || info.Root.String() != "000102030405060708090a0b0c0d0e0f" ||
		info.RootVersion != 0x01020304 || hex.EncodeToString(info.IV) != "a0a1a2a3a4a5a6a7a8a9aaab" || len(info.Ciphertext) != 17 {
		t.Fatalf("info = %+v", info)
	}
	if !bytes.Equal(info.bytes(), golden(t)) {
		t.Fatal("not the same bytes again")
	}
}

func TestParseBlobRefuses(t *testing.T) {
	change := func(i int, b byte) []byte { blob := golden(t); blob[i] = b; return blob }
	cases := map[string][]byte{
		"empty":             nil,
		"too short":         golden(t)[:len(golden(t))-1],
		"too long":          append(golden(t), make([]byte, MaxPlaintext)...),
		"unknown format":    change(0, 2),
		"unknown mechanism": change(1, 2),
		"no IV":             change(headerSize, 0),
		"long IV":           change(headerSize, 13),
	}
	for name, blob := range cases {
		if _, err := ParseBlob(blob); !errors.Is(err, ErrBlob) {
			t.Errorf("%s: error = %v, want ErrBlob", name, err)
		}
	}
}

func TestAuthenticatedDataIsUnambiguous(t *testing.T) {
	a := BlobInfo{Mechanism: MechanismAESGCM, RootVersion: 1}
	b := BlobInfo{Mechanism: MechanismAESGCM, RootVersion: 2}
	if bytes.Equal(a.authenticated(nil), b.authenticated(nil)) {
		t.Error("the root version is not authenticated")
	}
	if bytes.HasPrefix(checkLabel, []byte{blobFormat}) {
		t.Error("the check value's AAD can be a blob's")
	}
}

func FuzzParseBlob(f *testing.F) {
	seeds := [][]byte{golden(f), golden(f)[:20], {}}
	if _, err := ParseBlob(seeds[0]); err != nil {
		f.Fatal(err)
	}
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		before := bytes.Clone(blob)
		info, err := ParseBlob(blob)
		if err != nil {
			if !errors.Is(err, ErrBlob) {
				t.Fatalf("error %v is not ErrBlob", err)
			}
			return
		}
		if !bytes.Equal(info.bytes(), blob) {
			t.Fatal("two encodings of one blob")
		}
		clear(info.IV)
		clear(info.Ciphertext)
		if !bytes.Equal(before, blob) {
			t.Fatal("the result shares the input's memory")
		}
	})
}
