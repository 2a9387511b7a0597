// Package hsmtest is a PKCS#11 module that forwards to another one and fails on
// demand, for tests alone; no product package imports it. The module is written in C
// (hsm/testdata/faultmodule), built with the C compiler the first time it is needed,
// and takes its orders from memory that it shares with the test, so that they change
// while calls are inside, in whichever process the module is loaded.
package hsmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// Module is a copy of the fault module, of one test. Safe for concurrent use.
type Module struct {
	Path string // of the library

	t       testing.TB
	control *control
	mu      sync.Mutex // held while a rule is changed
}

// Action is what happens to a call. The numbers are those of faultmodule.c.
type Action uint64

// The actions.
const (
	Refuse    Action = 1 + iota // return the code; the call is not made
	Lose                        // make the call, then return the code
	Hang                        // make the call once the fault was cleared or changed
	Corrupt                     // make the call, then flip a bit of its output
	Empty                       // of C_FindObjects: find nothing
	Abort                       // abort the process
	Crash                       // write to address 0
	Kill                        // SIGKILL to the process; the call is not made
	KillAfter                   // make the call, then SIGKILL to the process
)

// Fault is what happens to the calls of one function.
type Fault struct {
	Do    Action
	Code  uint          // a CKR value, for Refuse and Lose
	After int           // so many calls are let pass first
	Times int           // so many calls are hit; 0 stands for all
	Delay time.Duration // of each call, hit or not; to the microsecond
}

// rule and control are the structs of faultmodule.c.
type rule struct {
	calls, fired, after, times, action, code, delay, epoch uint64
}

type control struct {
	magic, sessions, mostSessions, limit, logout, replaced, renumber, inside, generation, process, ownIV uint64

	_      [5]uint64
	module [384]byte
	rules  [functionCount]rule
}

const magic = 0x4b574654

// New builds the module on top of the module at the given path. The test needs a C
// compiler, as the package under test does. What was injected is cleared when the test
// ends.
func New(t testing.TB, inner string) *Module {
	t.Helper()
	library, err := build()
	if err != nil {
		t.Fatal(err)
	}
	m := &Module{t: t, Path: filepath.Join(t.TempDir(), "faultmodule.so")}
	if err := os.WriteFile(m.Path, library, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.share(inner); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Reset)
	return m
}

// share makes the memory that the library maps too. It stays mapped: a call that
// hangs may look at it later.
func (m *Module) share(inner string) error {
	f, err := os.OpenFile(m.Path+".control", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	const size = int(unsafe.Sizeof(control{}))
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	m.control = (*control)(unsafe.Pointer(&memory[0])) // pages are aligned
	m.control.magic = magic
	if copy(m.control.module[:], inner) == len(m.control.module) {
		return errors.New("hsmtest: path of the module is too long")
	}
	return nil
}

// build compiles the module once for all tests of the process.
var build = sync.OnceValues(func() ([]byte, error) {
	source, err := source()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keywright-faultmodule-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "gcc"
	}
	library := filepath.Join(dir, "faultmodule.so")
	out, err := exec.Command(compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC",
		"-o", library, source, "-ldl", "-lpthread").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("build the fault module: %w: %s", err, out)
	}
	return os.ReadFile(library)
})

// source finds the module's source from any directory of the repository, where go
// test runs.
func source() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, "hsm", "testdata", "faultmodule", "faultmodule.c")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("hsmtest: hsm/testdata/faultmodule/faultmodule.c is not above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// Inject gives a function, such as "C_Sign", a fault in place of the one it has. What
// hangs in it goes on.
func (m *Module) Inject(function string, f Fault) {
	m.t.Helper()
	times := uint64(f.Times)
	if f.Times == 0 {
		times = 1 << 62
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rule(function)
	atomic.StoreUint64(&r.action, 0)
	atomic.StoreUint64(&r.after, uint64(f.After))
	atomic.StoreUint64(&r.times, times)
	atomic.StoreUint64(&r.code, uint64(f.Code))
	atomic.StoreUint64(&r.delay, uint64(f.Delay.Microseconds()))
	atomic.StoreUint64(&r.fired, 0)
	atomic.AddUint64(&r.epoch, 1)
	atomic.StoreUint64(&r.action, uint64(f.Do))
}

// InjectAll is Inject for all functions that use the token, from C_GetSlotInfo to
// C_GenerateRandom; opening a session and closing it are among them.
func (m *Module) InjectAll(f Fault) {
	m.t.Helper()
	for _, name := range functions {
		if tokenFunctions[name] {
			m.Inject(name, f)
		}
	}
}

// Clear ends the fault of a function. What hangs in it goes on.
func (m *Module) Clear(function string) { m.Inject(function, Fault{}) }

// Reset ends all faults.
func (m *Module) Reset() {
	for _, word := range []*uint64{&m.control.limit, &m.control.logout, &m.control.replaced} {
		atomic.StoreUint64(word, 0)
	}
	for _, name := range functions {
		m.Clear(name)
	}
}

// LimitSessions bounds the sessions that are open at once; 0 stands for no limit.
func (m *Module) LimitSessions(n int) { atomic.StoreUint64(&m.control.limit, uint64(n)) }

// Logout makes each of the next n calls find that somebody else logged out.
func (m *Module) Logout(n int) { atomic.StoreUint64(&m.control.logout, uint64(n)) }

// Replace makes the token tell another serial number, or its own again.
func (m *Module) Replace(replaced bool) {
	value := uint64(0)
	if replaced {
		value = 1
	}
	atomic.StoreUint64(&m.control.replaced, value)
}

// OwnIV lets the module behave like AWS CloudHSM, by whose name it goes: it makes the
// IV of AES-GCM itself, writes it into the parameters, and takes nothing but zeros
// there. Without write it leaves the zeros, and encrypts under them.
func (m *Module) OwnIV(write bool) {
	value := uint64(2)
	if write {
		value = 1
	}
	atomic.StoreUint64(&m.control.ownIV, value)
}

// Renumber makes the handle of an object name another object after each C_Initialize.
// It must be set before the first.
func (m *Module) Renumber() { atomic.StoreUint64(&m.control.renumber, 1) }

// Calls tells how often a function was called.
func (m *Module) Calls(function string) int { return int(atomic.LoadUint64(&m.rule(function).calls)) }

// AllCalls tells how often any function was called.
func (m *Module) AllCalls() (n int) {
	for _, name := range functions {
		n += m.Calls(name)
	}
	return n
}

// Fired tells how often a function's fault hit since it was injected.
func (m *Module) Fired(function string) int { return int(atomic.LoadUint64(&m.rule(function).fired)) }

// Inside tells how many calls are in the module now: each holds a thread. There are
// none when the process that has the module is gone.
func (m *Module) Inside() int {
	if !m.alive() {
		return 0
	}
	return int(int64(atomic.LoadUint64(&m.control.inside)))
}

// Sessions tells how many sessions are open now, and how many were at most.
func (m *Module) Sessions() (open, most int) {
	most = int(atomic.LoadUint64(&m.control.mostSessions))
	if !m.alive() {
		return 0, most
	}
	return int(int64(atomic.LoadUint64(&m.control.sessions))), most
}

func (m *Module) alive() bool { return syscall.Kill(m.Process(), 0) == nil }

// Generation tells how often the module was initialised.
func (m *Module) Generation() int { return int(atomic.LoadUint64(&m.control.generation)) }

// Process is the process that initialised the module last.
func (m *Module) Process() int { return int(atomic.LoadUint64(&m.control.process)) }

func (m *Module) rule(function string) *rule {
	m.t.Helper()
	i, ok := numbers()[function]
	if !ok {
		m.t.Fatalf("PKCS#11 has no function %q", function)
	}
	return &m.control.rules[i]
}
