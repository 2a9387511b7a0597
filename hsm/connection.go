package hsm

import (
	"sync/atomic"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// connection is a login on the token, and how far it is trusted. Safe for
// concurrent use.
type connection struct {
	*cryptoki.Connection
	doubt atomic.Uint32 // a trust value
	hsmIV bool          // the token makes the IVs of AES-GCM; read only
}

// What is known against a connection.
const (
	trusted   uint32 = iota
	loggedOut        // needs a new login
	suspect          // failed like a sick device
)

// live tells whether calls may use the connection.
func (c *connection) live() bool {
	return c.doubt.Load() == trusted && c.Current()
}

// session is what roots and signers are used through, by one goroutine.
type session struct {
	*cryptoki.Session
	hsmIV bool
}
