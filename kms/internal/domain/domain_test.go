package domain

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// plainRoot stands in for the device: a blob is AAD and secret as they are. It
// refuses another AAD, as AES-GCM does.
type plainRoot struct{ fail error }

func (r plainRoot) Wrap(_ context.Context, secret, aad []byte) ([]byte, error) {
	return append(append([]byte{}, aad...), secret...), r.fail
}

func (r plainRoot) Unwrap(_ context.Context, blob, aad []byte) ([]byte, error) {
	if r.fail != nil {
		return nil, r.fail
	}
	secret, ok := bytes.CutPrefix(blob, aad)
	if !ok {
		return nil, ErrNotAuthentic
	}
	return bytes.Clone(secret), nil
}

// lyingRoot unwraps whatever it is asked to: the domain must not rely on the
// device to tell places apart.
type lyingRoot struct{ secret []byte }

func (r lyingRoot) Wrap(context.Context, []byte, []byte) ([]byte, error) { return []byte("blob"), nil }
func (r lyingRoot) Unwrap(context.Context, []byte, []byte) ([]byte, error) {
	return bytes.Clone(r.secret), nil
}

var home = ID{Installation: [16]byte{1}, Namespace: 7, Generation: 1}

// elsewhere differs from home in one thing each.
var elsewhere = map[string]ID{
	"installation": {Installation: [16]byte{2}, Namespace: 7, Generation: 1},
	"namespace":    {Installation: [16]byte{1}, Namespace: 8, Generation: 1},
	"generation":   {Installation: [16]byte{1}, Namespace: 7, Generation: 2},
}

func open(t testing.TB, id ID) *Domain {
	t.Helper()
	d, err := Open(context.Background(), lyingRoot{bytes.Repeat([]byte{9}, secretSize)}, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCreateThenOpen(t *testing.T) {
	made, blob, err := Create(t.Context(), plainRoot{}, rand.Reader, home)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(t.Context(), plainRoot{}, home, blob)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := opened.Verify("path", 2, made.Authenticate("path", 1, []byte("payload")))
	if err != nil || string(payload) != "payload" {
		t.Errorf("Verify = %q, %v", payload, err)
	}
	sealed, err := made.Seal("place", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := opened.Open("place", sealed); err != nil || string(secret) != "secret" {
		t.Errorf("Open = %q, %v", secret, err)
	}
	if opened.Generation() != 1 {
		t.Errorf("generation %d", opened.Generation())
	}
	for what, id := range elsewhere {
		if _, err := Open(t.Context(), plainRoot{}, id, blob); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("a secret of another %s: %v", what, err)
		}
	}
}

func TestCreateFails(t *testing.T) {
	away := errors.New("away")
	if _, _, err := Create(t.Context(), plainRoot{away}, rand.Reader, home); !errors.Is(err, away) {
		t.Errorf("Create = %v", err)
	}
	if _, _, err := Create(t.Context(), plainRoot{}, strings.NewReader("short"), home); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Create = %v with too little randomness", err)
	}
	if _, err := Open(t.Context(), plainRoot{away}, home, nil); !errors.Is(err, away) {
		t.Errorf("Open = %v", err)
	}
	for _, size := range []int{0, secretSize - 1, secretSize + 1} {
		if _, err := Open(t.Context(), lyingRoot{make([]byte, size)}, home, nil); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("Open = %v with a secret of %d bytes", err, size)
		}
	}
}

// Even the same secret yields other keys at another place.
func TestDerivationBindsPlace(t *testing.T) {
	d := open(t, home)
	record := d.Authenticate("path", 1, []byte("payload"))
	sealed, err := d.Seal("place", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for what, id := range elsewhere {
		other := open(t, id)
		if _, err := other.Verify("path", 2, record); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("another %s verified the record: %v", what, err)
		}
		if _, err := other.Open("place", sealed); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("another %s opened the secret: %v", what, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	d := open(t, home)
	record := d.Authenticate("key/1", 5, []byte("payload"))
	edited := func(edit func([]byte) []byte) []byte { return edit(bytes.Clone(record)) }
	for name, c := range map[string]struct {
		path     string
		revision uint64
		record   []byte
	}{
		"moved":               {"key/2", 6, record},
		"moved to a longer":   {"key/1/", 6, record},
		"as old as its base":  {"key/1", 5, record},
		"older than its base": {"key/1", 4, record},
		"empty":               {"key/1", 6, nil},
		"only a header":       {"key/1", 6, record[:headerSize]},
		"truncated":           {"key/1", 6, record[:len(record)-1]},
		"longer":              {"key/1", 6, append(bytes.Clone(record), 0)},
		"without its payload": {"key/1", 6, append(bytes.Clone(record[:headerSize]), record[len(record)-sha256.Size:]...)},
	} {
		if payload, err := d.Verify(c.path, c.revision, c.record); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("%s: Verify = %q, %v", name, payload, err)
		}
	}
	for i := range record {
		flipped := edited(func(b []byte) []byte { b[i] ^= 1 << (i % 8); return b })
		if _, err := d.Verify("key/1", 6, flipped); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	if payload, err := d.Verify("key/1", 6, record); err != nil || string(payload) != "payload" {
		t.Errorf("Verify = %q, %v", payload, err)
	}
}

func TestSealedSecretsStayInPlace(t *testing.T) {
	d := open(t, home)
	sealed, err := d.Seal("material a", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open("material b", sealed); !errors.Is(err, ErrNotAuthentic) {
		t.Errorf("opened at another place: %v", err)
	}
	for n := range sealed {
		flipped := bytes.Clone(sealed)
		flipped[n] ^= 1
		if _, err := d.Open("material a", flipped); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("byte %d flipped: %v", n, err)
		}
		if _, err := d.Open("material a", sealed[:n]); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if again, err := d.Seal("material a", []byte("secret")); err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealing twice gave the same, %v", err)
	}
}

func TestDomainAtOnce(t *testing.T) {
	d := open(t, home)
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 500 {
				path := fmt.Sprint(w, "/", i)
				if _, err := d.Verify(path, 2, d.Authenticate(path, 1, []byte(path))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func TestDomainIsNeverPrinted(t *testing.T) {
	d := open(t, home)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "domain", d)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", d, d, d, d), log.String()} {
		if !strings.Contains(text, "[redacted]") || len(text) > 120 {
			t.Errorf("printed as %s", text)
		}
	}
}

// FuzzVerify looks for a record that is accepted although it was not made by
// the domain, and for a panic.
func FuzzVerify(f *testing.F) {
	d := open(f, home)
	record := d.Authenticate("key/1", 5, []byte(`{"id":1}`))
	for _, seed := range [][]byte{record, record[:headerSize], append([]byte{}, record[1:]...), nil, make([]byte, headerSize+sha256.Size)} {
		f.Add("key/1", uint64(6), seed)
	}
	f.Add("key/2", uint64(6), record)
	f.Fuzz(func(t *testing.T, path string, revision uint64, b []byte) {
		payload, err := d.Verify(path, revision, b)
		if genuine := path == "key/1" && revision > 5 && bytes.Equal(b, record); (err == nil) != genuine {
			t.Errorf("Verify(%q, %d, %x) = %q, %v", path, revision, b, payload, err)
		}
		peeked, peekErr := Peek(b)
		if err == nil && (peekErr != nil || !bytes.Equal(peeked, payload)) {
			t.Errorf("Peek = %q, %v, Verify = %q", peeked, peekErr, payload)
		}
	})
}

// While a namespace is rekeyed, its domain opens what either generation sealed and
// seals under the new one only.
func TestAccepting(t *testing.T) {
	older, newer := open(t, home), open(t, elsewhere["generation"])
	record, sealed := older.Authenticate("path", 1, []byte("payload")), must[[]byte](t)(older.Seal("place", []byte("secret")))
	both := newer.StoredAt(9).Accepting(older)
	if both.Generation() != 2 || both.Previous() != 1 || both.Revision() != 9 || both.Namespace() != home.Namespace {
		t.Errorf("generation %d after %d at revision %d of namespace %d", both.Generation(), both.Previous(), both.Revision(), both.Namespace())
	}
	for what, d := range map[string]*Domain{"older": older, "both": both} {
		payload, err := d.Verify("path", 2, record)
		secret, err2 := d.Open("place", sealed)
		if string(payload) != "payload" || string(secret) != "secret" || err != nil || err2 != nil {
			t.Errorf("%s: %q, %q, %v, %v", what, payload, secret, err, err2)
		}
	}
	if _, err := both.Verify("other path", 2, record); !errors.Is(err, ErrNotAuthentic) {
		t.Errorf("the older generation's record at another path: %v", err)
	}
	made, sealedNow := both.Authenticate("path", 1, []byte("new")), must[[]byte](t)(both.Seal("place", []byte("new")))
	if _, under, err := Claimed(made); under != 2 || err != nil {
		t.Errorf("a new record is of generation %d, %v", under, err)
	}
	if under, err := SealedUnder(sealedNow); under != 2 || err != nil {
		t.Errorf("a new secret is of generation %d, %v", under, err)
	}
	if _, err := older.Verify("path", 2, made); !errors.Is(err, ErrNewer) || !errors.Is(err, ErrNotAuthentic) {
		t.Errorf("the newer generation's record, by the older: %v", err)
	}
	if _, err := older.Open("place", sealedNow); !errors.Is(err, ErrNewer) {
		t.Errorf("the newer generation's secret, by the older: %v", err)
	}
	alone := both.Alone()
	if _, err := alone.Verify("path", 2, record); !errors.Is(err, ErrNotAuthentic) || errors.Is(err, ErrNewer) || alone.Previous() != 0 || alone.Revision() != 9 {
		t.Errorf("alone, the older generation's record: %v", err)
	}
	if _, err := alone.Open("place", sealed); !errors.Is(err, ErrNotAuthentic) {
		t.Errorf("alone, the older generation's secret: %v", err)
	}
	if _, _, err := Claimed(record[:20]); !errors.Is(err, ErrNotAuthentic) {
		t.Errorf("a cut record: %v", err)
	}
	if _, err := SealedUnder(sealed[:5]); !errors.Is(err, ErrNotAuthentic) {
		t.Errorf("a cut secret: %v", err)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Whoever holds a domain that was dropped can do nothing with it, until it is
// restored from the same one opened anew.
func TestDrop(t *testing.T) {
	d, older := open(t, home), open(t, ID{Installation: home.Installation, Namespace: home.Namespace})
	record := d.Authenticate("path", 1, []byte("payload"))
	sealed, err := d.Seal("place", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	both := d.StoredAt(7).Accepting(older)
	both.Drop()
	if _, err := d.Seal("place", nil); !errors.Is(err, ErrDropped) {
		t.Errorf("Seal = %v", err)
	}
	if _, err := d.Open("place", sealed); !errors.Is(err, ErrDropped) {
		t.Errorf("Open = %v", err)
	}
	if _, err := d.Verify("path", 2, record); !errors.Is(err, ErrDropped) {
		t.Errorf("Verify = %v", err)
	}
	if _, err := older.Seal("place", nil); !errors.Is(err, ErrDropped) {
		t.Errorf("Seal of the older generation = %v", err)
	}
	if b, tag := d.Authenticate("path", 1, nil), d.Tag("purpose", nil); b != nil || tag != nil {
		t.Errorf("Authenticate = %x, Tag = %x", b, tag)
	}
	d.Restore(open(t, home))
	if payload, err := both.Verify("path", 2, record); err != nil || string(payload) != "payload" {
		t.Errorf("Verify = %q, %v", payload, err)
	}
	if secret, err := d.Open("place", sealed); err != nil || string(secret) != "secret" {
		t.Errorf("Open = %q, %v", secret, err)
	}
}

// A secret that was wrapped anew opens what it has sealed before; one that fails
// what the caller checks is not wrapped.
func TestRewrap(t *testing.T) {
	made, blob, err := Create(t.Context(), plainRoot{}, rand.Reader, home)
	if err != nil {
		t.Fatal(err)
	}
	record := made.Authenticate("path", 1, []byte("payload"))
	verify := func(d *Domain) error {
		_, err := d.Verify("path", 2, record)
		return err
	}
	d, again, err := Rewrap(t.Context(), plainRoot{}, plainRoot{}, home, blob, verify)
	if err != nil || verify(d) != nil {
		t.Fatalf("Rewrap = %v", err)
	}
	opened, err := Open(t.Context(), plainRoot{}, home, again)
	if err != nil || verify(opened) != nil {
		t.Errorf("Open = %v", err)
	}
	refused := errors.New("refused")
	if _, again, err := Rewrap(t.Context(), plainRoot{}, plainRoot{}, home, blob, func(*Domain) error { return refused }); !errors.Is(err, refused) || again != nil {
		t.Errorf("Rewrap = %x, %v", again, err)
	}
	if _, again, err := Rewrap(t.Context(), plainRoot{}, plainRoot{refused}, home, blob, verify); !errors.Is(err, refused) {
		t.Errorf("Rewrap = %x, %v", again, err)
	}
	for what, id := range elsewhere {
		if _, _, err := Rewrap(t.Context(), plainRoot{}, plainRoot{}, id, blob, verify); !errors.Is(err, ErrNotAuthentic) {
			t.Errorf("a secret of another %s: %v", what, err)
		}
	}
}
