package hsm

import (
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// connection is a login on the token in one generation of the module. Safe for
// concurrent use.
type connection struct {
	module     *module
	generation uint64
	token      TokenInfo
	keeper     pkcs11.SessionHandle // carries the login: it ends with the last session
	doubt      atomic.Uint32        // a trust value

	mu      sync.Mutex
	idle    []pkcs11.SessionHandle // last used last
	handles map[object]pkcs11.ObjectHandle
	retired bool
}

// What is known against a connection.
const (
	trusted   uint32 = iota
	loggedOut        // needs a new login
	suspect          // failed like a sick device
)

// session is one PKCS#11 session, in use by one goroutine.
type session struct {
	*connection
	handle pkcs11.SessionHandle
}

// object names an object of the token for good.
type object struct {
	id    KeyID
	class uint // CKO_*
}

// login opens the keeper session on the token and logs in.
func login(m *module, generation uint64, token TokenInfo, source PINSource) (*connection, error) {
	c := &connection{module: m, generation: generation, token: token, handles: map[object]pkcs11.ObjectHandle{}}
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	if err := c.authenticate(s, source); err != nil {
		_ = m.p11.CloseSession(s)
		return nil, err
	}
	c.keeper = s
	return c, nil
}

// authenticate tries the PIN once. That another session of this process is logged
// in already is as good.
func (c *connection) authenticate(s pkcs11.SessionHandle, source PINSource) error {
	pin, err := source()
	if err != nil {
		return fault(ClassDevice, err) // unreadable now, perhaps not later: nothing was tried
	}
	defer pin.clear()
	err = c.module.p11.Login(s, pkcs11.CKU_USER, string(pin.value))
	if isCode(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return nil
	}
	return err
}

// live tells whether calls may use the connection.
func (c *connection) live() bool {
	return c.doubt.Load() == trusted && c.module.current() == c.generation
}

// within runs fn while the module cannot be finalised.
func (c *connection) within(fn func() error) error {
	if err := c.module.enter(c.generation); err != nil {
		return err
	}
	defer c.module.leave()
	return fn()
}

func (c *connection) open() (pkcs11.SessionHandle, error) {
	return c.module.p11.OpenSession(c.token.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
}

// take returns an idle session, or else a new one.
func (c *connection) take() (*session, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		handle := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return &session{c, handle}, nil
	}
	c.mu.Unlock()
	return c.fresh()
}

// fresh returns a new session.
func (c *connection) fresh() (*session, error) {
	handle, err := c.open()
	if err != nil {
		return nil, err
	}
	return &session{c, handle}, nil
}

// put keeps a healthy session for the next call.
func (s *session) put() {
	s.mu.Lock()
	if !s.retired {
		s.idle = append(s.idle, s.handle)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.close()
}

// close ends the session; if the token lost it already, all the better.
func (s *session) close() {
	if s.handle != 0 { // CK_INVALID_HANDLE
		_ = s.module.p11.CloseSession(s.handle)
	}
	s.handle = 0
}

// renew replaces the session by a new one, after a failure that may have left an
// operation active in it.
func (s *session) renew() error {
	s.close()
	handle, err := s.open()
	if err == nil {
		s.handle = handle
	}
	return err
}

// retire closes the keeper and the idle sessions; those in use close when they
// are put back.
func (c *connection) retire() {
	c.mu.Lock()
	sessions := append(c.idle, c.keeper)
	c.idle, c.retired = nil, true
	c.mu.Unlock()
	_ = c.within(func() error { // in a later generation they are gone anyway
		for _, s := range sessions {
			_ = c.module.p11.CloseSession(s)
		}
		return nil
	})
}

func (c *connection) handleOf(o object) (pkcs11.ObjectHandle, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	handle, ok := c.handles[o]
	return handle, ok
}

func (c *connection) remember(o object, handle pkcs11.ObjectHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handles[o] = handle
}

// forget drops all cached handles.
func (c *connection) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.handles)
}
