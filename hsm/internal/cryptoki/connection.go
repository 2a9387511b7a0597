package cryptoki

import (
	"sync"

	"github.com/miekg/pkcs11"
)

// Connection is a login on the token in one generation of the module, with the
// sessions that are idle and the handles found so far. Safe for concurrent use.
type Connection struct {
	Generation uint64 // of the module, read only
	Token      Token  // as it was at the login, read only

	module *Module
	keeper pkcs11.SessionHandle // carries the login: it ends with the last session

	mu      sync.Mutex
	idle    []pkcs11.SessionHandle // last used last
	handles map[Object]Handle
	retired bool
}

// Session is one PKCS#11 session, in use by one goroutine. Its methods run while
// the module cannot be finalised: inside Within, or between Enter and Leave.
type Session struct {
	*Connection
	handle pkcs11.SessionHandle
}

// Login opens the keeper session on the token and logs in as the user. The PIN that
// the source returns is tried once, and overwritten; the source's error is returned
// as it is. The caller has entered the module.
func Login(m *Module, generation uint64, token Token, pin func() ([]byte, error)) (*Connection, error) {
	c := &Connection{module: m, Generation: generation, Token: token, handles: map[Object]Handle{}}
	s, err := c.open()
	if err != nil {
		return nil, err
	}
	if err := c.authenticate(s, pin); err != nil {
		_ = m.p11.CloseSession(s)
		return nil, err
	}
	c.keeper = s
	return c, nil
}

// authenticate tries the PIN once. That another session of this process is logged
// in already is as good.
func (c *Connection) authenticate(s pkcs11.SessionHandle, pin func() ([]byte, error)) error {
	value, err := pin()
	if err != nil {
		return err // nothing was tried
	}
	defer clear(value)
	err = c.module.p11.Login(s, pkcs11.CKU_USER, string(value))
	if isCode(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return nil
	}
	return err
}

// Current tells whether the connection's generation is the module's.
func (c *Connection) Current() bool { return c.module.Current() == c.Generation }

// Within runs fn while the module cannot be finalised.
func (c *Connection) Within(fn func() error) error {
	if err := c.module.Enter(c.Generation); err != nil {
		return err
	}
	defer c.module.Leave()
	return fn()
}

func (c *Connection) open() (pkcs11.SessionHandle, error) {
	return c.module.p11.OpenSession(c.Token.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
}

// Take returns an idle session, or else a new one.
func (c *Connection) Take() (*Session, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		handle := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return &Session{c, handle}, nil
	}
	c.mu.Unlock()
	return c.Fresh()
}

// Fresh returns a new session.
func (c *Connection) Fresh() (*Session, error) {
	handle, err := c.open()
	if err != nil {
		return nil, err
	}
	return &Session{c, handle}, nil
}

// Put keeps a healthy session for the next call.
func (s *Session) Put() {
	s.mu.Lock()
	if !s.retired {
		s.idle = append(s.idle, s.handle)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.Close()
}

// Close ends the session; if the token lost it already, all the better.
func (s *Session) Close() {
	if s.handle != 0 { // CK_INVALID_HANDLE
		_ = s.module.p11.CloseSession(s.handle)
	}
	s.handle = 0
}

// Renew replaces the session by a new one, after a failure that may have left an
// operation active in it.
func (s *Session) Renew() error {
	s.Close()
	handle, err := s.open()
	if err == nil {
		s.handle = handle
	}
	return err
}

// Retire closes the keeper and the idle sessions; those in use close when they
// are put back.
func (c *Connection) Retire() {
	c.mu.Lock()
	sessions := append(c.idle, c.keeper)
	c.idle, c.retired = nil, true
	c.mu.Unlock()
	_ = c.Within(func() error { // in a later generation they are gone anyway
		for _, s := range sessions {
			_ = c.module.p11.CloseSession(s)
		}
		return nil
	})
}

func (c *Connection) handleOf(o Object) (Handle, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	handle, ok := c.handles[o]
	return handle, ok
}

// Remember caches an object's handle.
func (c *Connection) Remember(o Object, handle Handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handles[o] = handle
}

// Forget drops all cached handles.
func (c *Connection) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.handles)
}

// Idle returns how many sessions wait for the next call.
func (c *Connection) Idle() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.idle)
}
