package kms

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// probe asks the service something about one key ("" for none); its answer must
// never change because somebody wrote to the disk.
type probe struct {
	name string
	key  ID
	ask  func(s *Service) (string, error)
}

// furnished is an installation with records of every kind, and what to ask of it.
type furnished struct {
	*testInstallation
	probes []probe
	keys   map[ID]Key
}

func furnish(t *testing.T) *furnished {
	in := &furnished{testInstallation: newInstallation(t), keys: map[ID]Key{}}
	for _, ns := range []string{"pay", "ops"} {
		in.namespace(ns)
		in.furnishKey(ns, "card", "")
		put := PutPolicyRequest{Namespace: ns, Name: "local", Text: `permit (principal == User::"` + ns + `", action, resource in Namespace::"` + ns + `");`}
		must[Policy](t)(in.PutPolicy(t.Context(), admin(), put))
	}
	in.beginRekey("ops") // both its generations are in force
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "ops", Key: "card"}))
	in.furnishKey("pay", "counted", "AES_256_GCM")
	in.furnishKey("pay", "deleted", "")
	must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "deleted"}))
	in.probeRest()
	return in
}

// furnishKey makes a key of three versions, the first disabled.
func (in *furnished) furnishKey(ns, name, algorithm string) {
	ctx := in.t.Context()
	create := CreateKeyRequest{Namespace: ns, Key: name, Algorithm: algorithm, Rotation: Rotation{Period: 1000 * time.Hour}}
	if name != "deleted" { // its name is free: creating it again may well succeed
		create.Idempotency = ns + name
	}
	k := must[Key](in.t)(in.CreateKey(ctx, admin(), create))
	in.keys[k.ID] = k
	var sealed [][]byte
	for range 2 {
		sealed = append(sealed, in.encrypt(ns, name, "secret of "+k.ID.String()))
		must[KeyVersion](in.t)(in.RotateKey(ctx, admin(), KeyRef{Namespace: ns, Key: name}))
	}
	must[KeyVersion](in.t)(in.DisableVersion(ctx, admin(), VersionRef{Namespace: ns, Key: name, Version: 1}))
	in.probeKey(k, sealed)
	if create.Idempotency == "" {
		return
	}
	in.add("create again", k.ID, func(s *Service) (string, error) {
		k, err := s.CreateKey(ctx, admin(), create)
		return fmt.Sprintf("%+v", k), err
	})
}

func (in *furnished) add(name string, key ID, ask func(s *Service) (string, error)) {
	in.probes = append(in.probes, probe{name, key, ask})
}

func (in *furnished) probeKey(k Key, sealed [][]byte) {
	ctx, ns := in.t.Context(), k.Namespace
	for n, ciphertext := range sealed {
		in.add(fmt.Sprintf("%s/%s decrypt %d", ns, k.Name, n+1), k.ID, func(s *Service) (string, error) {
			got, err := s.Decrypt(ctx, admin(), &DecryptRequest{Namespace: ns, Ciphertext: ciphertext})
			return fmt.Sprintf("%+v", got), err
		})
	}
	in.add(ns+"/"+k.Name+" encrypt", k.ID, func(s *Service) (string, error) {
		got, err := s.Encrypt(ctx, admin(), &EncryptRequest{Namespace: ns, Key: k.Name, Plaintext: []byte("x")})
		return fmt.Sprint(got.Version), err
	})
	in.add(ns+"/"+k.Name+" describe", k.ID, func(s *Service) (string, error) {
		got, err := s.GetKey(ctx, admin(), KeyRef{Namespace: ns, Key: idPrefix + k.ID.String()})
		return fmt.Sprintf("%+v", got), err
	})
	in.add(ns+"/"+k.Name+" versions", k.ID, func(s *Service) (string, error) {
		got, _, err := s.ListVersions(ctx, admin(), ListVersionsRequest{Namespace: ns, Key: idPrefix + k.ID.String()})
		for i := range got {
			got[i].LastUsed = got[i].LastUsed.Truncate(1000 * time.Hour)
		}
		return fmt.Sprintf("%+v", got), err
	})
}

func (in *furnished) probeRest() {
	ctx := in.t.Context()
	for _, ns := range []string{"pay", "ops"} {
		in.add("namespace "+ns, 0, func(s *Service) (string, error) {
			got, err := s.GetNamespace(ctx, admin(), ns)
			return fmt.Sprintf("%+v", got), err
		})
		in.add("keys of "+ns, 0, func(s *Service) (string, error) {
			got, _, err := s.ListKeys(ctx, admin(), ListKeysRequest{Namespace: ns})
			return fmt.Sprintf("%+v", got), err
		})
		in.add("right in "+ns, 0, func(s *Service) (string, error) {
			got, err := s.GetNamespace(ctx, as(policy.User, ns), ns)
			return fmt.Sprintf("%+v", got), err
		})
	}
	in.add("namespaces", 0, func(s *Service) (string, error) {
		got, _, err := s.ListNamespaces(ctx, admin(), ListRequest{})
		return fmt.Sprintf("%+v", got), err
	})
	in.add("policies", 0, func(s *Service) (string, error) {
		got, _, err := s.ListPolicies(ctx, admin(), ListRequest{})
		return fmt.Sprintf("%+v", got), err
	})
	in.add("secret", 0, func(s *Service) (string, error) {
		got, err := s.SystemSecret(ctx, "extra")
		return string(got), err
	})
}

// reply is an answer or the code and message of an error.
type reply struct {
	text string
	err  error
}

// ask opens the service anew over the same store and asks everything; the error
// is Open's.
func (in *furnished) ask() ([]reply, error) {
	c := in.config
	c.Store, c.Audit, c.HSM, c.Clock, c.JobInterval = in.store, in.audit, in.device, in.now, time.Hour
	s, err := Open(in.t.Context(), c)
	if err != nil {
		return nil, err
	}
	defer s.stopJobs()
	replies := make([]reply, len(in.probes))
	for i, p := range in.probes {
		replies[i].text, replies[i].err = p.ask(s)
	}
	return replies, nil
}

func (in *furnished) records() map[string][]byte {
	page, err := in.store.List(in.t.Context(), "", "", 0)
	if err != nil || page.Next != "" {
		in.t.Fatalf("listing the store: next %q, %v", page.Next, err)
	}
	all := map[string][]byte{}
	for _, r := range page.Records {
		all[r.Key] = r.Value
	}
	return all
}

// write changes records as an attacker with the disk would.
func (in *furnished) write(records map[string][]byte) {
	in.t.Helper()
	var txn store.Txn
	for path, value := range records {
		if value == nil {
			txn.Deletes = append(txn.Deletes, path)
		} else {
			txn.Puts = append(txn.Puts, store.Put{Key: path, Value: value})
		}
	}
	if _, err := in.store.Commit(in.t.Context(), txn); err != nil {
		in.t.Fatal(err)
	}
}

func kind(path string) string {
	before, _, _ := strings.Cut(path, "/")
	return before
}

// keyOf returns the key that a record belongs to, 0 for none in particular.
func (in *furnished) keyOf(path string) ID {
	for id := range in.keys {
		if strings.Contains(path, id.String()) {
			return id
		}
	}
	return 0
}

// neverAsked are the kinds of records that no answer depends on: keyid/ keeps ids
// from being used twice, due/ says when to look at a key, rekey/ where to go on.
var neverAsked = []string{"keyid", "due", "rekey"}

// wantUnharmed checks the answers after a record was changed: each is the true
// one or a refusal, and there is a refusal, but not for other keys.
func (in *furnished) wantUnharmed(what string, truth []reply, codes []Code, paths ...string) {
	in.t.Helper()
	got, err := in.ask()
	if err != nil {
		if CodeOf(err) != DataLoss && !slices.Contains(paths, pathInstallation) {
			in.t.Errorf("%s: Open: %v, want a code DATA_LOSS", what, err)
		}
		return
	}
	refused := 0
	for i, p := range in.probes {
		if got[i].text == truth[i].text && CodeOf(got[i].err) == CodeOf(truth[i].err) {
			continue
		}
		refused++
		if !slices.Contains(codes, CodeOf(got[i].err)) {
			in.t.Errorf("%s: %s = %q, %v, was %q, %v", what, p.name, got[i].text, got[i].err, truth[i].text, truth[i].err)
		}
		if about := in.keyOf(paths[0]); len(paths) == 1 && about != 0 && p.key != 0 && p.key != about {
			in.t.Errorf("%s: %s of another key fails: %v", what, p.name, got[i].err)
		}
	}
	if refused == 0 && !slices.Contains(neverAsked, kind(paths[0])) {
		in.t.Errorf("%s: nobody noticed", what)
	}
}

// start ends the first service and returns the true answers.
func (in *furnished) start() []reply {
	in.t.Helper()
	in.Service.Close(in.t.Context())
	in.Service = nil
	in.t.Cleanup(in.closeParts)
	truth, err := in.ask()
	if err != nil {
		in.t.Fatal(err)
	}
	for i, p := range in.probes {
		if code := CodeOf(truth[i].err); code != OK && code != FailedPrecondition && code != NotFound {
			in.t.Fatalf("%s: %v", p.name, truth[i].err)
		}
	}
	again, err := in.ask()
	if err != nil || !slices.EqualFunc(truth, again, func(a, b reply) bool { return a.text == b.text }) {
		in.t.Fatalf("the answers are not always the same: %v", err)
	}
	return truth
}

func TestEditedRecordsAreRefused(t *testing.T) {
	t.Parallel()
	in := furnish(t)
	truth := in.start()
	edits := map[string]func([]byte) []byte{
		"flipped format":     func(b []byte) []byte { b[0] ^= 1; return b },
		"flipped namespace":  func(b []byte) []byte { b[8] ^= 1; return b },
		"flipped generation": func(b []byte) []byte { b[12] ^= 1; return b },
		"flipped base":       func(b []byte) []byte { b[20] ^= 1; return b },
		"flipped payload":    func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"flipped MAC":        func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		"truncated":          func(b []byte) []byte { return b[:len(b)-1] },
		"cut to the header":  func(b []byte) []byte { return b[:21] },
		"emptied":            func([]byte) []byte { return []byte{} },
		"longer":             func(b []byte) []byte { return append(b, 0) },
	}
	kinds := map[string]bool{}
	for path := range in.records() {
		now, first := in.records()[path], !kinds[kind(path)]
		kinds[kind(path)] = true
		for name, edit := range edits {
			if !first && name != "flipped payload" && name != "flipped MAC" {
				continue // one record of each kind gets them all
			}
			in.write(map[string][]byte{path: edit(bytes.Clone(now))})
			in.wantUnharmed(path+" "+name, truth, []Code{DataLoss}, path)
		}
		in.write(map[string][]byte{path: now})
	}
	if len(kinds) != 15 {
		t.Errorf("the records are of %d kinds, want all 15: %v", len(kinds), kinds)
	}
}

func TestMovedRecordsAreRefused(t *testing.T) {
	t.Parallel()
	in := furnish(t)
	truth := in.start()
	paths := slices.Sorted(maps.Keys(in.records()))
	for i, a := range paths {
		for _, b := range paths[i+1:] {
			if kind(a) != kind(b) {
				continue
			}
			now := in.records()
			in.write(map[string][]byte{a: now[b], b: now[a]})
			in.wantUnharmed(a+" swapped with "+b, truth, []Code{DataLoss}, a, b)
			in.write(map[string][]byte{a: now[a], b: now[b]})
			in.write(map[string][]byte{a: now[b]})
			in.wantUnharmed(a+" overwritten with "+b, truth, []Code{DataLoss}, a)
			in.write(map[string][]byte{a: now[a]})
		}
	}
}

// A record that is gone is missed, or what it stood for does not exist; a
// ciphertext whose key is gone only fails to decrypt.
func TestMissingRecords(t *testing.T) {
	t.Parallel()
	in := furnish(t)
	truth := in.start()
	for path, value := range in.records() {
		if path == pathInstallation {
			continue
		}
		in.write(map[string][]byte{path: nil})
		codes := map[string][]Code{
			"namespace":  {NotFound, OK}, // not listed any more
			"keyname":    {NotFound, OK},
			"key":        {NotFound, InvalidArgument, DataLoss},
			"version":    {DataLoss, OK},
			"secret":     {NotFound},
			"idempotent": {AlreadyExists},
		}[kind(path)]
		if codes == nil {
			codes = []Code{DataLoss}
		}
		in.wantUnharmed(path+" removed", truth, codes, path)
		in.write(map[string][]byte{path: value})
	}
}

func TestCorruptReadsAreRefused(t *testing.T) {
	t.Parallel()
	in := furnish(t)
	truth := in.start()
	for path := range in.records() {
		in.store.CorruptPrefix(path)
		in.wantUnharmed(path+" read wrongly", truth, []Code{DataLoss}, path)
		in.store.Heal()
	}
}

// A damaged job is not run and holds up no other.
func TestDamagedJobHoldsUpNoOther(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	for _, name := range []string{"a", "b"} {
		must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: name, Rotation: Rotation{Period: time.Hour}}))
	}
	jobs, err := in.store.List(t.Context(), prefixDue, "", 0)
	if err != nil || len(jobs.Records) != 2 {
		t.Fatalf("%d jobs, %v", len(jobs.Records), err)
	}
	in.store.CorruptPrefix(jobs.Records[0].Key)
	in.advance(2 * time.Hour)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRotated := func(want int) {
		t.Helper()
		rotated := 0
		for _, name := range []string{"a", "b"} {
			if must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: name})).PrimaryVersion == 2 {
				rotated++
			}
		}
		if rotated != want {
			t.Errorf("%d keys were rotated, want %d", rotated, want)
		}
	}
	wantRotated(1)
	in.store.Heal()
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRotated(2)
}

func TestOpenWithoutInstallation(t *testing.T) {
	in := newInstallation(t)
	in.Service.Close(t.Context())
	in.Service = nil
	t.Cleanup(in.closeParts)
	if _, err := in.store.Commit(t.Context(), store.Txn{Deletes: []string{pathInstallation}}); err != nil {
		t.Fatal(err)
	}
	before := in.device.objects()
	c := Config{Store: in.store, Audit: in.audit, HSM: in.device}
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrNotInitialized) {
		t.Errorf("Open = %v, want ErrNotInitialized", err)
	}
	if in.device.objects() != before {
		t.Error("Open made something on the token")
	}
}
