package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/badger"
)

// killEnv makes the test binary make one mutation and kill itself at one step of
// it: "directory|index of the mutation|number of the step".
const killEnv = "KEYWRIGHT_KMS_TEST_KILL"

// childTB is what a scene needs of a test, in a process that runs none.
type childTB struct{ testing.TB }

func (childTB) Context() context.Context { return context.Background() }
func (childTB) Helper()                  {}
func (childTB) Fatal(args ...any)        { childFailed(fmt.Sprintln(args...)) }
func (childTB) Fatalf(f string, args ...any) {
	childFailed(fmt.Sprintf(f, args...))
}
func (childTB) Errorf(f string, args ...any) {
	childFailed(fmt.Sprintf(f, args...))
}

const childFailure = 3

func childFailed(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(childFailure)
}

// killer counts the steps of a mutation and ends the process at one of them.
type killer struct {
	armed atomic.Bool
	left  atomic.Int64
	read  atomic.Bool // only the first read is a step: others are no different
}

func (k *killer) step() {
	if k.armed.Load() && k.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it arrives
	}
}

// killStore makes a step of the first read, and of before and after each commit.
type killStore struct {
	store.Store
	*killer
}

func (s killStore) Get(ctx context.Context, key string) (store.Record, error) {
	if s.armed.Load() && !s.read.Swap(true) {
		s.step()
	}
	return s.Store.Get(ctx, key)
}

func (s killStore) Commit(ctx context.Context, txn store.Txn) (store.Revision, error) {
	s.step()
	revision, err := s.Store.Commit(ctx, txn)
	s.step()
	return revision, err
}

// killDevice makes a step of before and after a secret is wrapped, and a key is made
// or removed. What is on it survives the process, as on a token.
type killDevice struct {
	*softDevice
	*killer
	file string // the token, which outlives the process
}

func (d killDevice) GenerateKey(ctx context.Context, id ObjectID, algorithm string) (HSMKey, error) {
	d.step()
	k, err := d.softDevice.GenerateKey(ctx, id, algorithm)
	err = errors.Join(err, d.save(d.file))
	d.step()
	return k, err
}

func (d killDevice) ImportKey(ctx context.Context, id ObjectID, algorithm string, material []byte) (HSMKey, error) {
	d.step()
	k, err := d.softDevice.ImportKey(ctx, id, algorithm, material)
	err = errors.Join(err, d.save(d.file))
	d.step()
	return k, err
}

func (d killDevice) Destroy(ctx context.Context, id ObjectID) error {
	d.step()
	err := errors.Join(d.softDevice.Destroy(ctx, id), d.save(d.file))
	d.step()
	return err
}

func (d killDevice) GenerateRoot(ctx context.Context, id ObjectID) ([]byte, error) {
	d.step()
	check, err := d.softDevice.GenerateRoot(ctx, id)
	err = errors.Join(err, d.save(d.file))
	d.step()
	return check, err
}

func (d killDevice) Wrap(ctx context.Context, id ObjectID, version uint32, secret, aad []byte) ([]byte, error) {
	d.step()
	blob, err := d.softDevice.Wrap(ctx, id, version, secret, aad)
	d.step()
	return blob, err
}

// Operation makes a step of when the outcome is in the log, before the answer.
func (k *killer) Operation(policy.Action, string, Code, time.Duration) { k.step() }
func (k *killer) Items(policy.Action, int)                             {}
func (k *killer) Device(string, bool, time.Duration)                   {}
func (k *killer) ScheduledUse(policy.Action)                           {}

func killYourself(order string) {
	var dir string
	var index, step int
	parts := strings.Split(order, "|")
	dir = parts[0]
	if _, err := fmt.Sscan(parts[1]+" "+parts[2], &index, &step); err != nil {
		childFailed(err.Error())
	}
	k := &killer{}
	k.left.Store(int64(step))
	device, err := loadDevice(filepath.Join(dir, deviceFile))
	inner, err2 := badger.Open(badger.Options{Dir: filepath.Join(dir, "store")})
	log, err3 := audit.Open(filepath.Join(dir, "audit"), audit.Options{})
	if err := errors.Join(err, err2, err3); err != nil {
		childFailed(err.Error())
	}
	in := &scene{testInstallation: &testInstallation{t: childTB{}, dir: dir}}
	in.Service, err = Open(context.Background(), Config{Store: killStore{inner, k}, Audit: log, HSM: killDevice{device, k, filepath.Join(dir, deviceFile)},
		Observer: k, Clock: in.now, JobInterval: time.Hour})
	if err != nil {
		childFailed(err.Error())
	}
	ns, err := in.findNamespace(context.Background(), "pay")
	if err == nil {
		in.old, err = in.deletedKey(ns)
	}
	if err == nil {
		in.tokens, err = loadTokens(dir)
	}
	if err != nil {
		childFailed(err.Error())
	}
	k.armed.Store(true)
	if err := mutations[index].do(in, "once"); err != nil {
		childFailed(err.Error())
	}
	os.Exit(0)
}

const tokensFile = "tokens"

func saveTokens(dir string, tokens []NewToken) error {
	b, err := json.Marshal(tokens)
	return errors.Join(err, os.WriteFile(filepath.Join(dir, tokensFile), b, 0o600))
}

func loadTokens(dir string) (tokens []NewToken, err error) {
	b, err := os.ReadFile(filepath.Join(dir, tokensFile))
	if err == nil {
		err = json.Unmarshal(b, &tokens)
	}
	return tokens, err
}

// deletedKey finds the key that the scene has deleted.
func (in *scene) deletedKey(ns *namespace) (Key, error) {
	keys, _, err := in.ListKeys(context.Background(), admin(), ListKeysRequest{Namespace: ns.Name, ShowDeleted: true})
	for _, k := range keys {
		if k.State == KeyDeleteScheduled {
			return k, err
		}
	}
	return Key{}, errors.Join(err, errors.New("no key is deleted"))
}

// Killed at any step of any mutation, a server finds at its next start what was
// done and what was not: no intent stays open, each outcome is true, nothing is
// half done, sending the change again makes it once, and the store is what the
// log says.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	template := newScene(t)
	if err := errors.Join(template.device.save(filepath.Join(template.dir, deviceFile)), saveTokens(template.dir, template.tokens)); err != nil {
		t.Fatal(err)
	}
	before := template.view()
	template.close()
	for index, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			steps := 0
			for killedAtStep(t, template, before, index, steps+1) {
				steps++
			}
			if least := 4; steps < least { // the first read, before and after the commit, after the outcome
				t.Errorf("only %d steps, want %d or more", steps, least)
			}
		})
	}
}

// killedAtStep tells whether there was such a step.
func killedAtStep(t *testing.T, template *scene, before string, index, step int) bool {
	t.Helper()
	in := &scene{testInstallation: &testInstallation{t: t, dir: filepath.Join(t.TempDir(), "copy")}, sealed: template.sealed, old: template.old, tokens: template.tokens}
	if err := os.CopyFS(in.dir, os.DirFS(template.dir)); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%d|%d", killEnv, in.dir, index, step))
	command.Stderr = os.Stderr
	err := command.Run()
	if command.ProcessState.ExitCode() == childFailure {
		t.Fatalf("step %d: the child failed: %v", step, err)
	}
	killed := !command.ProcessState.Exited()
	in.device = must[*softDevice](t)(loadDevice(filepath.Join(in.dir, deviceFile)))
	in.open()
	in.wantTrueOutcomes(step, before, mutations[index])
	in.wantObjects()
	in.advance(pendingAge)
	in.tendRootsNow()
	in.wantNoOrphan(in.device)
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("step %d: the store is not what the log says: %+v", step, found.Differences)
	}
	return killed
}

func (in *scene) wantTrueOutcomes(step int, before string, m mutation) {
	in.t.Helper()
	in.wantBracketed()
	resolved, made := 0, 0
	for _, e := range in.entries(audit.Filter{}) {
		if e.Phase == audit.PhaseOutcome && e.Reason == reasonResolved {
			resolved++
			if e.Outcome == string(OK) {
				made++
			}
		}
	}
	now := in.view()
	if !m.silent && resolved == 1 && (made == 1) != (now != before) {
		in.t.Errorf("step %d: the log says made: %v, but:\n%s", step, made == 1, diff(before, now))
	}
	if err := m.do(in, "once"); err != nil {
		in.t.Fatalf("step %d: sent again: %v", step, err)
	}
	after := in.view()
	if after == before {
		in.t.Errorf("step %d: sent again, it did not happen", step)
	}
	if !m.silent && now != before && now != after {
		in.t.Errorf("step %d: sent again, it happened twice:\n%s", step, diff(now, after))
	}
}
