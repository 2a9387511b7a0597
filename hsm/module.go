package hsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
)

// loaded holds the modules of this process. PKCS#11 makes a module a process-wide
// singleton: C_Initialize works once, and C_Finalize ends it for everybody. So
// there is exactly one owner per library, found here, whoever opens it. Libraries
// stay loaded for good, because many do not survive being unloaded.
var loaded = struct {
	sync.Mutex
	byPath map[string]*module
}{byPath: map[string]*module{}}

// module is a loaded PKCS#11 library. Its state changes under life, which is held
// across C_Initialize and C_Finalize; calls into it pass enter and leave, so that
// it is never finalised under a call in flight (which aborts some vendors'
// modules). Safe for concurrent use.
type module struct {
	path string
	p11  *pkcs11.Ctx
	life semaphore

	mu          sync.Mutex
	refs        int
	initialised bool
	draining    bool
	generation  uint64
	inflight    int
	idle        chan struct{} // closed when inflight falls to 0 while draining
}

// loadModule returns the module of that path, loading it the first time.
func loadModule(path string) (*module, error) {
	path, err := canonical(path)
	if err != nil {
		return nil, err
	}
	loaded.Lock()
	defer loaded.Unlock()
	if m := loaded.byPath[path]; m != nil {
		return m, nil
	}
	p11 := pkcs11.New(path)
	if p11 == nil {
		return nil, fmt.Errorf("%w: %q is no PKCS#11 library for this machine, or a library that it needs is missing (see ldd)", ErrModule, path)
	}
	m := &module{path: path, p11: p11, life: newSemaphore(1)}
	loaded.byPath[path] = m
	return m, nil
}

// canonical resolves links, so that one library has one owner. A bare file name
// is left to the dynamic loader's search path.
func canonical(path string) (string, error) {
	if path == "" {
		return "", fmt.Errorf("%w: no path given", ErrModule)
	}
	if !strings.ContainsRune(path, os.PathSeparator) {
		return path, nil
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrModule, err)
	}
	return filepath.Abs(resolved)
}

// open takes a reference, and initialises the module if it is the first.
func (m *module) open(ctx context.Context) error {
	if err := m.life.acquire(ctx); err != nil {
		return fault(ClassDevice, err)
	}
	defer m.life.release()
	if !m.inUse() {
		if err := m.restart(ctx); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs++
	return nil
}

// close drops a reference, and finalises the module with the last. When calls are
// stuck in it until ctx ends, it is left to the next open.
func (m *module) close(ctx context.Context) error {
	m.abandon()
	if err := m.life.acquire(ctx); err != nil {
		return fault(ClassDevice, err)
	}
	defer m.life.release()
	if m.inUse() {
		return nil
	}
	return m.finalise(ctx)
}

// abandon drops a reference and touches the module no more.
func (m *module) abandon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs--
}

// exclusively runs fn on a freshly initialised module that nobody else has open.
func (m *module) exclusively(ctx context.Context, fn func() error) error {
	if err := m.life.acquire(ctx); err != nil {
		return fault(ClassDevice, err)
	}
	defer m.life.release()
	if m.inUse() {
		return ErrModuleInUse
	}
	if err := m.restart(ctx); err != nil {
		return err
	}
	return errors.Join(fn(), m.finalise(ctx))
}

func (m *module) inUse() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refs > 0
}

// reinitialise makes a new generation, unless somebody else made one since seen.
func (m *module) reinitialise(ctx context.Context, seen uint64) error {
	if err := m.life.acquire(ctx); err != nil {
		return fault(ClassDevice, err)
	}
	defer m.life.release()
	if m.current() != seen {
		return nil
	}
	return m.restart(ctx)
}

// restart makes a new generation. It needs life.
func (m *module) restart(ctx context.Context) error {
	if err := m.finalise(ctx); err != nil {
		return err
	}
	return m.initialise()
}

// current returns the generation of the last initialisation.
func (m *module) current() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation
}

// enter registers a call on behalf of a generation, which leave ends. It refuses
// when that generation is over, or is being ended.
func (m *module) enter(generation uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.initialised || m.draining || m.generation != generation {
		return pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
	}
	m.inflight++
	return nil
}

func (m *module) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inflight--
	if m.inflight == 0 && m.idle != nil {
		close(m.idle)
		m.idle = nil
	}
}

// initialise needs life. Somebody else in the process may have initialised the
// same library already, which serves as well.
func (m *module) initialise() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.unlocked(func() error { return m.p11.Initialize() })
	if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return &Error{Op: "initialise module", Class: ClassDevice, Code: codeOf(err), Err: fmt.Errorf("%w: %s: %w", ErrModule, m.path, err)}
	}
	m.initialised = true
	m.generation++
	return nil
}

// finalise needs life. It waits for the calls in flight, and changes nothing if
// they outlast ctx.
func (m *module) finalise(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.initialised {
		return nil
	}
	m.draining = true
	defer func() { m.draining = false }()
	if err := m.unlocked(func() error { return m.drain(ctx) }); err != nil {
		return err
	}
	// An error leaves nothing to be done: what counts is whether the next
	// initialisation works.
	_ = m.unlocked(func() error { return m.p11.Finalize() })
	m.initialised = false
	return nil
}

// unlocked runs what may take long without mu, so that Status and enter never wait
// for the module.
func (m *module) unlocked(fn func() error) error {
	m.mu.Unlock()
	defer m.mu.Lock()
	return fn()
}

func (m *module) drain(ctx context.Context) error {
	m.mu.Lock()
	if m.inflight == 0 {
		m.mu.Unlock()
		return nil
	}
	if m.idle == nil {
		m.idle = make(chan struct{})
	}
	idle := m.idle
	m.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fault(ClassDevice, errors.New("calls are stuck in the module"))
	}
}

func codeOf(err error) uint {
	var code pkcs11.Error
	errors.As(err, &code)
	return uint(code)
}
