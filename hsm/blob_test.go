package hsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
)

// goldenBlob is fixed by the format's first release: root id 00..0f, version
// 0x01020304, IV a0..ab, ciphertext c0..d0.
const goldenBlob = "0101" + "000102030405060708090a0b0c0d0e0f" + "01020304" +
	"0c" + "a0a1a2a3a4a5a6a7a8a9aaab" + "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0"

// otherBlobs are of the same root, with a data key wrapped by AES-KW (40 bytes 11) and
// by RSA-OAEP (384 bytes 22, and a MAC of 32 bytes 33).
var otherBlobs = map[Mechanism]string{
	MechanismAESKW: "0103" + "000102030405060708090a0b0c0d0e0f" + "01020304" +
		"0028" + strings.Repeat("11", 40) + "00" + "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0",
	MechanismRSAOAEP: "0104" + "000102030405060708090a0b0c0d0e0f" + "01020304" +
		"0180" + strings.Repeat("22", 384) + "20" + strings.Repeat("33", 32) + "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0",
}

func otherBlob(t testing.TB, m Mechanism) []byte {
	t.Helper()
	blob, err := hex.DecodeString(otherBlobs[m])
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func TestParseOtherBlobsGolden(t *testing.T) {
	for m, proof := range map[Mechanism]int{MechanismAESKW: 0, MechanismRSAOAEP: 32} {
		blob := otherBlob(t, m)
		info, err := ParseBlob(blob)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mechanism != m || info.RootVersion != 0x01020304 || info.IV != nil || len(info.Proof) != proof ||
			!slices.Contains(wrappedKeySizes[m], len(info.WrappedKey)) || len(info.Ciphertext) != 17 {
			t.Errorf("info = %+v", info)
		}
		if !bytes.Equal(info.bytes(), blob) {
			t.Errorf("%v: not the same bytes again", m)
		}
	}
}

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
		"unknown mechanism": change(1, 5),
		"no IV":             change(headerSize, 0),
		"long IV":           change(headerSize, 13),
	}
	for m := range otherBlobs {
		spoil := func(i int, b byte) []byte { blob := otherBlob(t, m); blob[i] = b; return blob }
		blob := otherBlob(t, m)
		proof := headerSize + 2 + wrappedKeySizes[m][0]
		cases[m.String()+" too short"] = blob[:len(blob)-1]
		cases[m.String()+" cut in the key"] = blob[:proof-1]
		cases[m.String()+" cut before the proof"] = blob[:proof]
		cases[m.String()+" key's length"] = spoil(headerSize+1, 0x29)
		cases[m.String()+" proof's length"] = spoil(proof, 0x21)
		cases[m.String()+" too long"] = append(blob, make([]byte, MaxPlaintext)...)
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
	seeds := [][]byte{golden(f), golden(f)[:20], {}, otherBlob(f, MechanismAESKW), otherBlob(f, MechanismRSAOAEP)}
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
		clear(info.WrappedKey)
		clear(info.Proof)
		clear(info.Ciphertext)
		if !bytes.Equal(before, blob) {
			t.Fatal("the result shares the input's memory")
		}
	})
}
