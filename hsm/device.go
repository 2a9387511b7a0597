package hsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
	"github.com/keywright/keywright/hsm/internal/wait"
)

// Device is a token in use. Make it with Open. Safe for concurrent use.
type Device struct {
	config       Config
	module       *cryptoki.Module
	token        cryptoki.Token // as found by Open; its slot may change later
	able         ability
	profile      Profile // what is known about its kind
	capabilities Capabilities

	pool       wait.Semaphore // a place for each call inside the module
	recovering wait.Semaphore // held while the connection is replaced
	conn       atomic.Pointer[connection]
	patience   *wait.Patience // with calls of the configured timeout
	backoff    backoff
	health     health
	labelled   atomic.Bool // whether labels of RSA-OAEP were seen to be honoured
	closing    chan struct{}
	closeOnce  sync.Once
	closeError error

	mu      sync.RWMutex
	roots   map[KeyID]Root // generated or found, checked after each reconnection
	signers map[KeyID]heldKey
	keys    map[KeyID]heldKey // HSM-resident, generated, imported or found
}

// Open loads the module, finds the token and logs in. It creates nothing on the
// token, and tries the PIN at most once. Errors, beside those of Error's classes:
// ErrConfig, ErrModule, ErrTokenNotFound, ErrAmbiguousToken.
func Open(ctx context.Context, config Config) (*Device, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, classify("open", err)
	}
	ctx, cancel := wait.Bounded(ctx, config.Timeout)
	defer cancel()
	d, err := wait.For(ctx, func() (*Device, error) { return open(ctx, config) })
	if errors.Is(err, wait.ErrStuck) {
		err = fault(ClassDevice, err)
	}
	if err != nil {
		return nil, classify("open", err)
	}
	return d, nil
}

func open(ctx context.Context, config Config) (*Device, error) {
	m, err := cryptoki.Load(config.Module)
	if err != nil {
		return nil, err
	}
	defer turn(ctx, m.Path, config.Timeout/2)()
	if err := m.OpenWith(ctx, config.InitArgs); err != nil {
		return nil, err
	}
	d := &Device{
		config:     config,
		module:     m,
		recovering: wait.NewSemaphore(1),
		closing:    make(chan struct{}),
		roots:      map[KeyID]Root{},
		signers:    map[KeyID]heldKey{},
		keys:       map[KeyID]heldKey{},
	}
	err = d.start(config.TokenLabel, config.TokenSerial)
	if err == nil && ctx.Err() != nil { // nobody waits for this device any more
		d.patience.Stop()
		d.conn.Load().Retire()
		err = context.Cause(ctx)
	}
	if err != nil {
		release, cancel := wait.Detached(ctx, config.Timeout)
		defer cancel()
		return nil, errors.Join(err, m.Close(release))
	}
	return d, nil
}

// start makes the first connection, and remembers which token it was.
func (d *Device) start(label, serial string) error {
	c, err := d.connect(label, serial)
	if err != nil {
		return err
	}
	err = c.Within(func() error {
		d.able, err = abilities(c)
		if err != nil {
			return err
		}
		d.profile, err = profileOf(d.module, c.Token)
		d.able.implied = d.profile.Uses.Is == "implied"
		d.able.hsmIV = d.profile.GCMIV.Is == GCMIVParameter
		c.hsmIV = d.able.hsmIV
		if d.profile.Changes.Is != "beside" {
			d.module.ChangeAlone()
		}
		d.capabilities = d.able.capabilities()
		d.capabilities.RootWrap = len(d.newRootKinds()) > 0
		return err
	})
	if err != nil {
		c.Retire()
		return err
	}
	d.token = c.Token
	limited := c.Token
	if limited.MaxSessions == 0 {
		limited.MaxSessions = d.profile.MaxSessions.Is
	}
	d.pool = wait.NewSemaphore(d.config.poolSize(limited))
	d.conn.Store(c)
	d.health.good()
	d.patience = wait.NewPatience(d.config.Timeout)
	return nil
}

// connect logs in on the token in the module's current generation, and makes sure
// that the known roots are there.
func (d *Device) connect(label, serial string) (c *connection, err error) {
	generation := d.module.Current()
	if err := d.module.Enter(generation); err != nil {
		return nil, err
	}
	defer d.module.Leave()
	token, err := d.module.FindToken(label, serial)
	if err != nil {
		return nil, err
	}
	in, err := cryptoki.Login(d.module, generation, token, d.config.PIN.bytes)
	if err != nil {
		return nil, err
	}
	c = &connection{Connection: in, hsmIV: d.able.hsmIV}
	if err := d.checkRoots(c); err != nil {
		c.Retire()
		return nil, err
	}
	return c, nil
}

// checkRoots verifies every known root on a new connection.
func (d *Device) checkRoots(c *connection) error {
	roots := d.knownRoots()
	if len(roots) == 0 {
		return nil
	}
	fresh, err := c.Fresh()
	if err != nil {
		return err
	}
	s := &session{fresh, c.hsmIV}
	defer s.Close()
	for _, root := range roots {
		if err := d.check(s, root); err != nil {
			return fmt.Errorf("root %s: %w", root.ID, err)
		}
	}
	return nil
}

func (d *Device) knownRoots() map[KeyID]Root {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return maps.Clone(d.roots)
}

func (d *Device) knownRoot(id KeyID) (Root, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	root, ok := d.roots[id]
	return root, ok
}

func (d *Device) rememberRoot(root Root) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roots[root.ID] = root
}

// Status implements Service.
func (d *Device) Status() Status {
	s := Status{
		Module:        d.module.Path,
		TokenLabel:    d.token.Label,
		TokenSerial:   d.token.Serial,
		Manufacturer:  d.token.Manufacturer,
		Model:         d.token.Model,
		SessionsInUse: len(d.pool),
		SessionsMax:   cap(d.pool),
		Generation:    d.module.Current(),
		Capabilities:  d.capabilities,
	}
	d.health.report(&s)
	return s
}

// Close implements Service. When calls are stuck in the module, it is left as it
// is, and the error says so.
func (d *Device) Close() error {
	d.closeOnce.Do(func() {
		close(d.closing)
		d.closeError = d.shutdown()
		d.patience.Stop()
	})
	return d.closeError
}

// shutdown waits until no call is left, then lets go of the module.
func (d *Device) shutdown() error {
	ctx, cancel := wait.Bounded(context.Background(), d.config.Timeout)
	defer cancel()
	if err := d.quiesce(ctx); err != nil {
		d.module.Abandon()
		return &Error{Op: "close", Class: ClassDevice, Err: fmt.Errorf("calls are stuck in the module, which stays initialised: %w", err)}
	}
	_, err := wait.For(ctx, func() (struct{}, error) {
		d.conn.Load().Retire()
		return struct{}{}, d.module.Close(ctx)
	})
	if err != nil {
		return classify("close", err)
	}
	return nil
}

// quiesce takes every place in the pool, and the one for recovery, for good.
func (d *Device) quiesce(ctx context.Context) error {
	for range cap(d.pool) {
		if err := d.pool.Acquire(ctx); err != nil {
			return err
		}
	}
	return d.recovering.Acquire(ctx)
}

// health is what is known about the token without asking it. The zero value is
// unhealthy. Safe for concurrent use.
type health struct {
	well    atomic.Bool
	refused atomic.Pointer[Error] // set once, when the PIN was refused
	silent  atomic.Int32          // failed requests for the token's information, in a row

	mu        sync.Mutex
	lastClass Class
	lastAt    time.Time
}

func (h *health) good() {
	if !h.well.Load() {
		h.well.Store(true)
	}
}

// bad records a failure. Neither a wrong request, nor a busy pool, nor an object
// that is gone says anything about the token.
func (h *health) bad(e *Error) {
	if e.Class == ClassCaller {
		return
	}
	if e.Class != ClassExhausted && e.Class != ClassHandle {
		h.well.Store(false)
	}
	if e.Class == ClassPIN {
		h.refused.CompareAndSwap(nil, e)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastClass, h.lastAt = e.Class, time.Now()
}

// stopped returns an error once the PIN was refused: it is never tried again.
func (h *health) stopped() error {
	if e := h.refused.Load(); e != nil {
		return e
	}
	return nil
}

func (h *health) report(s *Status) {
	s.Healthy = h.well.Load()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.LastErrorClass, s.LastErrorAt = h.lastClass, h.lastAt
}
