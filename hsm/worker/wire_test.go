package worker

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/wait"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// Every error that hsm exports keeps its identity on the way from the worker.
func TestSentinelsAreComplete(t *testing.T) {
	paths, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for name, object := range file.Scope.Objects { //nolint:staticcheck // deprecated for what it does not resolve; names of a file are enough
			if object.Kind == ast.Var && strings.HasPrefix(name, "Err") {
				found++
				if sentinels[name] == nil {
					t.Errorf("hsm.%s is not in the table", name)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("found %d errors of hsm only", found)
	}
}

func TestErrorsRoundTrip(t *testing.T) {
	for name, sentinel := range sentinels {
		sent := &hsm.Error{Op: "unwrap", Class: hsm.ClassDevice, Code: 0x30, Err: fmt.Errorf("%w: more", sentinel)}
		got, err := readError(wire.NewBody(appendError(nil, sent)))
		if err != nil {
			t.Fatal(err)
		}
		if !errors.Is(got, sentinel) || !errors.Is(got, hsm.ErrUnavailable) || got.Error() != sent.Error() || got.Code != 0x30 || got.Class != sent.Class {
			t.Errorf("%s: got %v", name, got)
		}
		for other, s := range sentinels {
			if other != name && errors.Is(got, s) != errors.Is(sent, s) {
				t.Errorf("%s became %s", name, other)
			}
		}
	}
	plain, err := readError(wire.NewBody(appendError(nil, io.ErrNoProgress)))
	if err != nil || plain.Class != hsm.ClassCaller || plain.Err.Error() != io.ErrNoProgress.Error() {
		t.Errorf("got %v, %v", plain, err)
	}
}

func TestValuesRoundTrip(t *testing.T) {
	c := settings{"/usr/lib/module.so", "arguments", "label", "serial", 16, 5_000_000_000}
	roundTrip(t, c, c.append(nil), readSettings)
	root := hsm.Root{ID: newID(), CheckValue: make([]byte, 16)}
	roundTrip(t, root, appendRoot(nil, root), readRoot)
	key := hsm.Key{ID: newID(), Algorithm: "ED25519", PublicKey: []byte{1}, Origin: hsm.Origin{Local: true, AlwaysSensitive: true}}
	roundTrip(t, key, appendKey(nil, key), readKey)
	ids := []hsm.KeyID{newID(), newID()}
	roundTrip(t, ids, appendIDs(nil, ids), readIDs)
	status := hsm.Status{Module: "m", TokenLabel: "l", TokenSerial: "s", Manufacturer: "ma", Model: "mo", SessionsMax: 3,
		Capabilities: hsm.Capabilities{RootWrap: true, Signing: []string{"ED25519"}, Keys: []string{"AES_256_GCM", "ED25519"}}}
	roundTrip(t, status, appendStatus(nil, status), readStatus)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := hsm.Signer{ID: newID(), Algorithm: hsm.ECDSAP256, PublicKey: private.Public()}
	encoded, err := newSigner(s)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, s, encoded.append(nil), readSigner)
}

func roundTrip[T any](t *testing.T, sent T, encoded []byte, read func(*wire.Body) T) {
	t.Helper()
	b := wire.NewBody(encoded)
	if got := read(b); b.Done() != nil || !reflect.DeepEqual(got, sent) {
		t.Errorf("got %+v, %v; want %+v", got, b.Done(), sent)
	}
}

// What a worker is told and tells has every field that there is: a field that is new in
// hsm has to cross as well, or to be named here.
func TestNoFieldIsForgotten(t *testing.T) {
	crosses := []string{"Module", "InitArgs", "TokenLabel", "TokenSerial", "PIN", "MaxSessions", "Timeout", "Logger"} // the last as text
	for f := range fields(hsm.Config{}) {
		if !slices.Contains(crosses, f) {
			t.Errorf("hsm.Config.%s does not reach a worker: see settings", f)
		}
	}
	var status hsm.Status
	fill(reflect.ValueOf(&status).Elem())
	b := wire.NewBody(appendStatus(nil, status))
	got := readStatus(b)
	if err := b.Done(); err != nil {
		t.Fatal(err)
	}
	own := []string{"Healthy", "LastErrorClass", "LastErrorAt", "SessionsInUse", "Generation", "Workers", "WorkerRestarts"} // the Supervisor's
	for f, i := range fields(status) {
		if !slices.Contains(own, f) && !reflect.DeepEqual(reflect.ValueOf(got).Field(i).Interface(), reflect.ValueOf(status).Field(i).Interface()) {
			t.Errorf("hsm.Status.%s does not cross", f)
		}
	}
	var key hsm.Key
	fill(reflect.ValueOf(&key).Elem())
	roundTrip(t, key, appendKey(nil, key), readKey)
	var root hsm.Root
	fill(reflect.ValueOf(&root).Elem())
	roundTrip(t, root, appendRoot(nil, root), readRoot)
}

// fields returns the exported fields of a struct, with their indices.
func fields(v any) map[string]int {
	found := map[string]int{}
	for i := range reflect.TypeOf(v).NumField() {
		if f := reflect.TypeOf(v).Field(i); f.IsExported() {
			found[f.Name] = i
		}
	}
	return found
}

// fill gives every field in v a value other than zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Array:
		fill(v.Index(0))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	}
}

// refuser is a device that does nothing, so that only the wire is tried.
type refuser struct{ service }

var errRefused = &hsm.Error{Op: "fuzz", Class: hsm.ClassSession, Err: errors.New("refused")}

func (refuser) GenerateRootAs(context.Context, hsm.KeyID) (hsm.Root, error) {
	return hsm.Root{}, errRefused
}
func (refuser) FindRoot(context.Context, hsm.KeyID, []byte) (hsm.Root, error) {
	return hsm.Root{}, errRefused
}
func (refuser) Wrap(context.Context, hsm.KeyID, uint32, []byte, []byte) ([]byte, error) {
	return nil, errRefused
}
func (refuser) Unwrap(context.Context, []byte, []byte) ([]byte, error) { return nil, errRefused }
func (refuser) Random(context.Context, int) ([]byte, error)            { return nil, errRefused }
func (refuser) GenerateSignerAs(context.Context, hsm.KeyID) (hsm.Signer, error) {
	return hsm.Signer{}, errRefused
}
func (refuser) FindSigner(context.Context, hsm.KeyID) (hsm.Signer, error) {
	return hsm.Signer{}, errRefused
}
func (refuser) Sign(context.Context, hsm.KeyID, []byte) ([]byte, error) { return nil, errRefused }
func (refuser) Probe(context.Context) error                             { return errRefused }
func (refuser) Destroy(context.Context, hsm.KeyID) error                { return errRefused }
func (refuser) GenerateKey(context.Context, hsm.KeyID, string) (hsm.Key, error) {
	return hsm.Key{}, errRefused
}
func (refuser) ImportKey(context.Context, hsm.KeyID, string, []byte) (hsm.Key, error) {
	return hsm.Key{}, errRefused
}
func (refuser) FindKey(context.Context, hsm.KeyID, string) (hsm.Key, error) {
	return hsm.Key{}, errRefused
}
func (refuser) UseKey(context.Context, hsm.KeyID, string, hsm.Use, []byte, []byte) ([]byte, error) {
	return nil, errRefused
}
func (refuser) ListKeys(context.Context) ([]hsm.KeyID, error) { return nil, errRefused }

// A worker takes any stream of requests: it answers each, or ends for nonsense.
func FuzzRequests(f *testing.F) {
	for m := range handlers {
		one, _ := wire.Append(nil, wire.Request, uint64(m), func(to []byte) []byte { return append(to, byte(m)) })
		f.Add(one)
		id := newID()
		more, _ := wire.Append(one, wire.Request, 99, func(to []byte) []byte {
			return wire.AppendBytes(append(append(to, byte(m)), id[:]...), "argument")
		})
		f.Add(more)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		mine, theirs := net.Pipe()
		s := newServer(theirs, slog.New(slog.DiscardHandler))
		go func() { // the Supervisor
			_, _ = mine.Write(stream)
			_ = mine.Close()
		}()
		err := s.loop(refuser{})
		if err != nil && !errors.Is(err, wire.ErrNonsense) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("error of another kind: %v", err)
		}
		_ = theirs.Close()
	})
}

// A Supervisor takes any stream from a worker: it ends with an error, and a call
// under way gets at most one reply.
func FuzzAnswers(f *testing.F) {
	answer, _ := wire.Append(nil, wire.Answer, 1, func(to []byte) []byte { return wire.AppendBytes(to, make([]byte, 32)) })
	refusal, _ := wire.Append(nil, wire.Refusal, 1, func(to []byte) []byte { return appendError(to, errRefused) })
	stuck, _ := wire.Append(nil, wire.Refusal, 2, func(to []byte) []byte {
		return appendError(to, &hsm.Error{Class: hsm.ClassDevice, Err: wait.ErrStuck})
	})
	ready, _ := wire.Append(nil, wire.Ready, 0, func(to []byte) []byte { return appendStatus(to, hsm.Status{SessionsMax: 1}) })
	for _, seed := range [][]byte{answer, refusal, stuck, ready} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		mine, theirs := net.Pipe()
		p := &process{conn: mine, opening: make(chan wire.Frame, 1), places: make(chan struct{}, 2), calls: map[uint64]*asked{}}
		for call := range uint64(2) {
			p.places <- struct{}{}
			p.inFlight.Add(1)
			p.calls[call+1] = &asked{reply: make(chan reply, 1)}
		}
		go func() {
			_, _ = theirs.Write(stream)
			_ = theirs.Close()
		}()
		if err := p.read(); err == nil {
			t.Fatal("read ended without a reason")
		}
		select {
		case frame := <-p.opening:
			if body, err := outcome(frame); err == nil {
				readStatus(body)
			}
		default:
		}
		_ = mine.Close()
	})
}

// Values have one encoding each, and anything else is refused.
func FuzzValues(f *testing.F) {
	f.Add(appendStatus(nil, hsm.Status{SessionsMax: 1, Capabilities: hsm.Capabilities{Keys: []string{"ED25519"}}}), byte(0))
	f.Add(appendRoot(nil, hsm.Root{ID: newID(), CheckValue: make([]byte, 16)}), byte(1))
	f.Add(appendKey(nil, hsm.Key{Algorithm: "ED25519"}), byte(2))
	f.Add(appendIDs(nil, []hsm.KeyID{newID()}), byte(3))
	f.Add(settings{module: "m"}.append(nil), byte(4))
	f.Add(appendID(nil, newID()), byte(5))
	f.Fuzz(func(t *testing.T, body []byte, which byte) {
		var again []byte
		b := wire.NewBody(body)
		switch which % 6 {
		case 0:
			again = appendStatus(nil, readStatus(b))
		case 1:
			again = appendRoot(nil, readRoot(b))
		case 2:
			again = appendKey(nil, readKey(b))
		case 3:
			again = appendIDs(nil, readIDs(b))
		case 4:
			again = readSettings(b).append(nil)
		case 5: // the key in it may have several
			readSigner(b)
			return
		}
		if b.Done() == nil && !bytes.Equal(again, body) {
			t.Fatalf("%x was read, and written as %x", body, again)
		}
	})
}
