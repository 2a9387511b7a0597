package hsm

import (
	"errors"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
)

// A caller that waits for somebody else's recovery does not try a PIN again that was
// refused meanwhile, not even when the pause after it is over.
func TestRefusedPINIsNotTriedByWhoWaited(t *testing.T) {
	d, root := small(t)
	if err := d.recovering.Acquire(t.Context()); err != nil { // somebody recovers
		t.Fatal(err)
	}
	d.conn.Load().doubt.Store(loggedOut)
	waited := make(chan error)
	go func() {
		_, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil)
		waited <- err
	}()
	for d.Status().SessionsInUse == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // until it waits for its turn; if it does not yet, it is told all the same
	_ = d.gaveUp(fault(ClassPIN, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)))
	d.backoff.mu.Lock()
	d.backoff.until = time.Time{}
	d.backoff.mu.Unlock()
	d.recovering.Release()
	var e *Error
	if err := <-waited; !errors.As(err, &e) || e.Class != ClassPIN {
		t.Fatalf("error = %v, want one of class pin", err)
	}
	if d.conn.Load().live() {
		t.Fatal("the refused PIN was tried again")
	}
}
