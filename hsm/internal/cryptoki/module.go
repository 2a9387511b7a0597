package cryptoki

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/wait"
)

// loaded holds the modules of this process. PKCS#11 makes a module a process-wide
// singleton: C_Initialize works once, and C_Finalize ends it for everybody. So
// there is exactly one owner per library, found here, whoever opens it. Libraries
// stay loaded for good, because many do not survive being unloaded.
var loaded = struct {
	sync.Mutex
	byPath map[string]*Module
}{byPath: map[string]*Module{}}

// Module is a loaded PKCS#11 library. Its state changes under life, which is held
// across C_Initialize and C_Finalize; calls into it pass Enter and Leave, so that
// it is never finalised under a call in flight (which aborts some vendors'
// modules). Safe for concurrent use.
type Module struct {
	Path string // canonical, read only

	p11       *pkcs11.Ctx
	functions functions
	life      wait.Semaphore
	changes   changes

	mu          sync.Mutex
	refs        int
	arguments   arguments // of the last initialisation
	initialised bool
	draining    bool
	generation  uint64
	inflight    int
	idle        chan struct{} // closed when inflight falls to 0 while draining
}

// Load returns the module of that path, loading it the first time.
func Load(path string) (*Module, error) {
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
	list, ok := functions{}, p11 != nil
	if ok {
		list, ok = functionsOf(p11)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %q is no PKCS#11 library for this machine, or a library that it needs is missing (see ldd)", ErrModule, path)
	}
	m := &Module{Path: path, p11: p11, functions: list, life: wait.NewSemaphore(1)}
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

// Open takes a reference, and initialises the module if it is the first.
func (m *Module) Open(ctx context.Context) error { return m.OpenWith(ctx, "") }

// OpenWith is Open with the module's own initialise arguments, which some modules
// want in the reserved field of CK_C_INITIALIZE_ARGS (PKCS#11 v2.40 section 5.4
// has NULL there); "" is NULL. All who have the module open share them:
// ErrModuleInUse.
func (m *Module) OpenWith(ctx context.Context, arguments string) error {
	if err := m.life.Acquire(ctx); err != nil {
		return &Fault{err}
	}
	defer m.life.Release()
	if !m.inUse() {
		m.setArguments(arguments)
		if err := m.restart(ctx); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.arguments.value != arguments {
		return fmt.Errorf("%w: %s was initialised with other arguments", ErrModuleInUse, m.Path)
	}
	m.refs++
	return nil
}

func (m *Module) setArguments(arguments string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.arguments.set(arguments)
}

// Close drops a reference, and finalises the module with the last. When calls are
// stuck in it until ctx ends, it is left to the next Open.
func (m *Module) Close(ctx context.Context) error {
	m.Abandon()
	if err := m.life.Acquire(ctx); err != nil {
		return &Fault{err}
	}
	defer m.life.Release()
	if m.inUse() {
		return nil
	}
	return m.finalise(ctx)
}

// Abandon drops a reference and touches the module no more.
func (m *Module) Abandon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refs--
}

// Exclusively runs fn on a freshly initialised module that nobody else has open.
func (m *Module) Exclusively(ctx context.Context, fn func() error) error {
	if err := m.life.Acquire(ctx); err != nil {
		return &Fault{err}
	}
	defer m.life.Release()
	if m.inUse() {
		return ErrModuleInUse
	}
	m.setArguments("")
	if err := m.restart(ctx); err != nil {
		return err
	}
	return errors.Join(fn(), m.finalise(ctx))
}

func (m *Module) inUse() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refs > 0
}

// Reinitialise makes a new generation, unless somebody else made one since seen.
func (m *Module) Reinitialise(ctx context.Context, seen uint64) error {
	if err := m.life.Acquire(ctx); err != nil {
		return &Fault{err}
	}
	defer m.life.Release()
	if m.Current() != seen {
		return nil
	}
	return m.restart(ctx)
}

// restart makes a new generation. It needs life.
func (m *Module) restart(ctx context.Context) error {
	if err := m.finalise(ctx); err != nil {
		return err
	}
	return m.initialise()
}

// Current returns the generation of the last initialisation.
func (m *Module) Current() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation
}

// Enter registers a call on behalf of a generation, which Leave ends. It refuses
// when that generation is over, or is being ended.
func (m *Module) Enter(generation uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.initialised || m.draining || m.generation != generation {
		return pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
	}
	m.inflight++
	return nil
}

// Leave ends a call that Enter registered.
func (m *Module) Leave() {
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
func (m *Module) initialise() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	options := m.arguments.options()
	err := m.unlocked(func() error { return m.p11.Initialize(options...) })
	if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return &Fault{fmt.Errorf("%w: %s: %w", ErrModule, m.Path, err)}
	}
	m.initialised = true
	m.generation++
	return nil
}

// finalise needs life. It waits for the calls in flight, and changes nothing if
// they outlast ctx.
func (m *Module) finalise(ctx context.Context) error {
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

// unlocked runs what may take long without mu, so that Current and Enter never wait
// for the module.
func (m *Module) unlocked(fn func() error) error {
	m.mu.Unlock()
	defer m.mu.Lock()
	return fn()
}

func (m *Module) drain(ctx context.Context) error {
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
		return &Fault{errors.New("calls are stuck in the module")}
	}
}
