package hsm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/hsmtest"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// truthWithin is how long health may take to tell the truth.
const truthWithin = slower * 5 * time.Second

// health is what a fault does to it.
type health int

const (
	staysWell health = iota // the token can do its work
	fallsSick
	mayVary // calls differ in what they meet
)

// fault is a row of the matrix.
type fault struct {
	name  string
	begin func(*rig)
	end   func(*rig) // the cause goes away; nil ends what was injected

	call   func(*rig) error // meets the fault; nil stands for unwrap
	want   error            // sentinel; nil: callers notice nothing
	class  hsm.Class
	reason error            // told by some call, if not by all
	or     error            // another sentinel that callers may get
	code   uint             // PKCS#11 return value that the error carries, if it matters
	beside func(*rig) error // goes on meanwhile, if anything does
	health health

	prepare func(*hsmtest.Module, *hsm.Config)

	deadly  bool // the process that has the module dies
	killed  bool // a worker is killed, or dies, and is replaced
	made    int  // objects that the calls make, and that stay
	logins  int  // at most; 0: no login is needed
	forever bool // it takes an operator: nothing comes back by itself
}

func TestFaultMatrix(t *testing.T) {
	for _, f := range slicesOfFaults() {
		t.Run(f.name, func(t *testing.T) {
			if f.deadly { // in process it is the end of the server: the reason why there are workers
				f.run(newRig(t, throughWorker, f.prepare))
				return
			}
			eachWay(t, func(t *testing.T, w way) { f.run(newRig(t, w, f.prepare)) })
		})
	}
}

func slicesOfFaults() (all []fault) {
	for _, some := range [][]fault{deviceFaults(), operationFaults(), sessionFaults(), pinFaults(), objectFaults(), hangFaults(), deathFaults()} {
		all = append(all, some...)
	}
	return all
}

// run goes through a fault's whole life.
func (f fault) run(r *rig) {
	if f.call == nil {
		f.call = (*rig).unwrap
	}
	o := observation{fault: f.name}
	began := time.Now()
	f.begin(r)
	o.health = f.judge(r, began)
	o.callers = f.callers(r)
	f.storm(r)
	f.staysTrue(r)
	if f.beside != nil {
		if err := f.beside(r); err != nil {
			r.Errorf("what does not meet the fault does not go on: %v", err)
		}
		o.callers += ", others ok"
	}
	healed := time.Now()
	if f.end == nil {
		f.end = func(r *rig) { r.module.Reset() }
	}
	f.end(r)
	if f.forever {
		o.recovery = f.staysAway(r)
	} else {
		o.recovery = f.recovers(r, healed)
	}
	r.leavesNothing()
	f.count(r)
	r.report(o)
	if f.forever {
		r.reopen()
	}
}

// How many calls meet a fault: one after the other, then at once.
const (
	singleCallers = 3
	stormCallers  = 6
	allCallers    = singleCallers + stormCallers
)

// callers calls a few times, and checks what the caller gets, and that it is let go
// in time.
func (f fault) callers(r *rig) string {
	r.Helper()
	answer := ""
	for range singleCallers {
		began := time.Now()
		err := f.call(r)
		if took := time.Since(began); took > slower*3*r.config.Timeout {
			r.Errorf("the caller waited %v", took)
		}
		r.hidesPIN(err)
		f.check(r, err)
		answer = told(err)
	}
	if f.reason != nil {
		eventually(r, func() error {
			err := f.call(r)
			answer = told(err)
			return errors.Join(noError(err), unless(errors.Is(err, f.reason), err))
		})
	}
	return answer
}

// check makes sure that a caller got what it should.
func (f fault) check(r *rig, err error) {
	r.Helper()
	var e *hsm.Error
	switch {
	case f.code != 0:
		if !errors.As(err, &e) || e.Class != f.class || e.Code != f.code {
			r.Fatalf("error = %v; want one of class %s with code %#x", err, f.class, f.code)
		}
	case f.want == nil:
		if err != nil {
			r.Fatalf("the caller noticed: %v", err)
		}
	case f.or == nil || !errors.Is(err, f.or):
		want(r, err, f.want, f.class)
	}
}

// silent tells whether callers notice nothing.
func (f fault) silent() bool { return f.want == nil && f.code == 0 }

// unless makes an error of what should have been so.
func unless(ok bool, err error) error {
	if ok {
		return nil
	}
	return fmt.Errorf("not what was wanted: %w", err)
}

// judge waits until health tells the truth.
func (f fault) judge(r *rig, began time.Time) string {
	r.Helper()
	if f.health == fallsSick {
		for r.Status().Healthy {
			if time.Since(began) > truthWithin {
				r.Fatal("status hides the fault")
			}
			time.Sleep(5 * time.Millisecond)
		}
		return fmt.Sprintf("sick after %.1f s", time.Since(began).Seconds())
	}
	if f.health == mayVary {
		return "varies with the calls"
	}
	return "well"
}

// staysTrue makes sure that health was not led astray.
func (f fault) staysTrue(r *rig) {
	r.Helper()
	if f.health == staysWell && !r.Status().Healthy {
		r.Errorf("status = %+v, though the token can do its work", r.Status())
	}
	if f.health == fallsSick && r.Status().Healthy {
		r.Errorf("status = %+v, though the token cannot do its work", r.Status())
	}
}

// storm lets many callers meet the fault at once.
func (f fault) storm(r *rig) {
	var wg sync.WaitGroup
	for range stormCallers {
		wg.Go(func() {
			if err := f.call(r); f.silent() && err != nil {
				r.Errorf("one of many callers noticed: %v", err)
			}
		})
	}
	wg.Wait()
}

// staysAway makes sure that nothing is tried again by itself.
func (f fault) staysAway(r *rig) string {
	r.Helper()
	time.Sleep(500 * time.Millisecond)
	want(r, f.call(r), f.want, f.class)
	return "by a new Open only"
}

// recovers waits until everything works again by itself.
func (f fault) recovers(r *rig, healed time.Time) string {
	r.Helper()
	eventually(r, r.all)
	if f.health == staysWell {
		return "not needed"
	}
	return fmt.Sprintf("%.1f s", time.Since(healed).Seconds())
}

// count makes sure that no key was lost or made, and no PIN tried too often.
func (f fault) count(r *rig) {
	r.Helper()
	now := r.traces()
	if now.keys != r.before.keys+f.made {
		r.Errorf("%d objects on the token, want %d", now.keys, r.before.keys+f.made)
	}
	if f.killed && r.way.worker && r.module.Process() == r.before.process {
		r.Error("the worker is the one from before")
	}
	if tried := now.logins - r.before.logins; tried > f.logins {
		r.Errorf("%d logins, want at most %d", tried, f.logins)
	}
}

// refuseAll makes a fault that every use of the token meets.
func refuseAll(code uint) func(*rig) {
	return func(r *rig) { r.module.InjectAll(hsmtest.Fault{Do: hsmtest.Refuse, Code: code}) }
}

// inject makes a fault that the calls of some functions meet.
func inject(f hsmtest.Fault, functions ...string) func(*rig) {
	return func(r *rig) {
		for _, name := range functions {
			r.module.Inject(name, f)
		}
	}
}

// together begins several faults.
func together(begin ...func(*rig)) func(*rig) {
	return func(r *rig) {
		for _, one := range begin {
			one(r)
		}
	}
}

// A recovery logs in once, in each attempt.
const loginsOfRecovery = 12

// deviceFaults are those of a whole device.
func deviceFaults() []fault {
	away := func(name string, code uint) fault {
		return fault{name: name, begin: refuseAll(code), want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery}
	}
	return []fault{
		away("device error", pkcs11.CKR_DEVICE_ERROR),
		away("device removed", pkcs11.CKR_DEVICE_REMOVED),
		away("token not present", pkcs11.CKR_TOKEN_NOT_PRESENT),
		away("general error from everything", pkcs11.CKR_GENERAL_ERROR),
		away("code of a vendor's own", pkcs11.CKR_VENDOR_DEFINED+7),
		{name: "token directory away and back",
			begin: (*rig).hideTokens, end: (*rig).restoreTokens,
			want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
		{name: "making a key while the token directory is away",
			begin: (*rig).hideTokens, end: (*rig).restoreTokens, call: (*rig).generate,
			want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
		{name: "finding a root while the token directory is away",
			begin: (*rig).hideTokens, end: (*rig).restoreTokens, call: (*rig).findRoot,
			want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
		{name: "token replaced by one of the same label",
			begin: func(r *rig) { r.hideTokens(); r.otherToken() },
			end:   func(r *rig) { r.removeTokens(); r.restoreTokens() },
			want:  hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
		{name: "token replaced under open sessions",
			begin: together(func(r *rig) { r.module.Replace(true) },
				inject(hsmtest.Fault{Do: hsmtest.Empty}, "C_FindObjects"),
				inject(hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_KEY_HANDLE_INVALID}, "C_EncryptInit", "C_DecryptInit", "C_SignInit")),
			want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
		{name: "slow device",
			begin: func(r *rig) { r.module.InjectAll(hsmtest.Fault{Delay: 20 * time.Millisecond}) }},
		{name: "information fails twice in a row",
			begin: inject(hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_DEVICE_ERROR, Times: 2}, "C_GetTokenInfo"),
			call:  (*rig).probeNow, beside: (*rig).unwrap},
		{name: "information fails for good",
			begin: func(r *rig) {
				inject(hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_DEVICE_ERROR}, "C_GetTokenInfo")(r)
				eventually(r, func() error { return noError(r.probeNow()) })
			},
			call: (*rig).probeNow, want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
	}
}

// noError is an error if there was none.
func noError(err error) error {
	if err == nil {
		return errors.New("nothing was noticed yet")
	}
	return nil
}

// operationFaults are those of single operations.
func operationFaults() []fault {
	once := func(do hsmtest.Action, functions ...string) func(*rig) {
		return inject(hsmtest.Fault{Do: do, Code: pkcs11.CKR_GENERAL_ERROR, Times: 1}, functions...)
	}
	always := func(do hsmtest.Action, functions ...string) func(*rig) {
		return inject(hsmtest.Fault{Do: do, Code: pkcs11.CKR_GENERAL_ERROR}, functions...)
	}
	var rows []fault
	for function, call := range map[string]func(*rig) error{
		"C_EncryptInit": (*rig).wrap, "C_DecryptInit": (*rig).unwrap, "C_SignInit": (*rig).sign, "C_FindObjectsInit": (*rig).findAnew,
	} {
		rows = append(rows,
			fault{name: "one error after " + function + ", operation left active", begin: once(hsmtest.Lose, function), call: call},
			fault{name: "an error after every " + function, begin: always(hsmtest.Lose, function), call: call,
				want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: mayVary, logins: loginsOfRecovery})
	}
	for function, call := range map[string]func(*rig) error{
		"C_Encrypt": (*rig).wrap, "C_Decrypt": (*rig).unwrap, "C_Sign": (*rig).sign, "C_FindObjects": (*rig).findAnew,
	} {
		rows = append(rows,
			fault{name: "one error from " + function, begin: once(hsmtest.Refuse, function), call: call})
	}
	return append(rows, []fault{
		{name: "signing alone fails", begin: always(hsmtest.Refuse, "C_Sign"), call: (*rig).sign,
			want: hsm.ErrUnavailable, class: hsm.ClassDevice, beside: (*rig).unwrap, health: mayVary},
		{name: "one signature corrupted", begin: once(hsmtest.Corrupt, "C_Sign"), call: (*rig).sign, beside: (*rig).unwrap},
		{name: "all signatures corrupted", begin: always(hsmtest.Corrupt, "C_Sign"), call: (*rig).sign,
			want: hsm.ErrUnavailable, class: hsm.ClassDevice, beside: (*rig).unwrap, health: mayVary},
		{name: "one ciphertext corrupted", begin: once(hsmtest.Corrupt, "C_Encrypt"), call: (*rig).wrap},
		{name: "all ciphertexts corrupted", begin: always(hsmtest.Corrupt, "C_Encrypt"), call: (*rig).wrap,
			want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
		{name: "all plaintexts corrupted", begin: always(hsmtest.Corrupt, "C_Decrypt"), call: (*rig).probeNow,
			want: hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
	}...)
}

// sessionFaults are those of sessions, logins and handles.
func sessionFaults() []fault {
	once := func(code uint, functions ...string) func(*rig) {
		return inject(hsmtest.Fault{Do: hsmtest.Refuse, Code: code, Times: 1}, functions...)
	}
	uses := []string{"C_EncryptInit", "C_DecryptInit", "C_SignInit"}
	return []fault{
		{name: "session lost", begin: once(pkcs11.CKR_SESSION_HANDLE_INVALID, uses...), call: (*rig).all},
		{name: "session closed by the token", begin: once(pkcs11.CKR_SESSION_CLOSED, uses...), call: (*rig).all},
		{name: "stale handle", begin: once(pkcs11.CKR_KEY_HANDLE_INVALID, uses...), call: (*rig).all},
		{name: "external logout", begin: func(r *rig) { r.module.Logout(1) }, call: (*rig).all, logins: 1},
		{name: "session limit of the token",
			begin: together(func(r *rig) { r.module.LimitSessions(1) }, loseSessions),
			want:  hsm.ErrExhausted, class: hsm.ClassExhausted, health: mayVary, prepare: hurried},
	}
}

// loseSessions makes the device close the sessions that it keeps, so that it needs
// new ones.
func loseSessions(r *rig) {
	inject(hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_SESSION_HANDLE_INVALID, Times: 20}, "C_DecryptInit", "C_EncryptInit")(r)
}

// pinFaults are refusals of the PIN: it is tried once, and never again.
func pinFaults() []fault {
	refused := func(name string, code uint) fault {
		return fault{name: name,
			begin: together(inject(hsmtest.Fault{Do: hsmtest.Refuse, Code: code}, "C_Login"), func(r *rig) { r.module.Logout(1) }),
			want:  hsm.ErrPIN, class: hsm.ClassPIN, health: fallsSick, logins: 1, forever: true}
	}
	return []fault{
		refused("wrong PIN", pkcs11.CKR_PIN_INCORRECT),
		refused("locked PIN", pkcs11.CKR_PIN_LOCKED),
		refused("expired PIN", pkcs11.CKR_PIN_EXPIRED),
	}
}

// objectFaults are those of keys and their making.
func objectFaults() []fault {
	make := func(do hsmtest.Action, code uint, times int, function string) func(*rig) {
		return inject(hsmtest.Fault{Do: do, Code: code, Times: times}, function)
	}
	return []fault{
		{name: "one lost reply on making a key", begin: make(hsmtest.Lose, pkcs11.CKR_DEVICE_ERROR, 1, "C_GenerateKey"),
			call: (*rig).generate, made: allCallers},
		{name: "every reply lost on making keys", begin: make(hsmtest.Lose, pkcs11.CKR_DEVICE_ERROR, 0, "C_GenerateKey"),
			call: (*rig).generate, beside: (*rig).unwrap, made: allCallers},
		{name: "one lost reply on making a key pair", begin: make(hsmtest.Lose, pkcs11.CKR_DEVICE_ERROR, 1, "C_GenerateKeyPair"),
			call: (*rig).generateSigner, made: 2 * allCallers},
		{name: "every reply lost on making key pairs", begin: make(hsmtest.Lose, pkcs11.CKR_DEVICE_ERROR, 0, "C_GenerateKeyPair"),
			call: (*rig).generateSigner, beside: (*rig).unwrap, made: 2 * allCallers},
		{name: "making a key fails", begin: make(hsmtest.Refuse, pkcs11.CKR_DEVICE_ERROR, 0, "C_GenerateKey"),
			call: (*rig).generate, want: hsm.ErrUnknownOutcome, class: hsm.ClassUnknown, beside: (*rig).unwrap, health: mayVary},
		{name: "empty find while sick",
			begin: together(inject(hsmtest.Fault{Do: hsmtest.Empty}, "C_FindObjects"), forgetHandles),
			want:  hsm.ErrUnavailable, class: hsm.ClassDevice, health: fallsSick, logins: loginsOfRecovery},
		{name: "another key under the root's id",
			begin: together(func(r *rig) { r.elsewhere().duplicate(r.root) }, forgetHandles),
			end:   func(r *rig) { r.elsewhere().destroyDuplicate() },
			want:  hsm.ErrUnavailable, class: hsm.ClassDevice, reason: hsm.ErrDuplicateObject, health: fallsSick, logins: loginsOfRecovery},
		{name: "another key of the root's label",
			begin: together(func(r *rig) { r.elsewhere().namesake(r.root) }, forgetHandles),
			made:  1},
		{name: "token full", begin: make(hsmtest.Refuse, pkcs11.CKR_DEVICE_MEMORY, 0, "C_GenerateKey"), call: (*rig).generate,
			want: hsm.ErrExhausted, class: hsm.ClassExhausted, beside: (*rig).unwrap, prepare: hurried},
		{name: "token write-protected", begin: make(hsmtest.Refuse, pkcs11.CKR_TOKEN_WRITE_PROTECTED, 0, "C_GenerateKey"), call: (*rig).generate,
			code: pkcs11.CKR_TOKEN_WRITE_PROTECTED, class: hsm.ClassCaller, beside: (*rig).unwrap},
	}
}

// forgetHandles makes the device look for its keys again.
func forgetHandles(r *rig) {
	inject(hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_KEY_HANDLE_INVALID, Times: 1}, "C_EncryptInit", "C_DecryptInit")(r)
}

func (r *rig) tokens() string { return filepath.Join(r.token.Dir, "tokens") }

func (r *rig) hideTokens() {
	r.Helper()
	if err := os.Rename(r.tokens(), r.tokens()+".away"); err != nil {
		r.Fatal(err)
	}
	eventually(r, func() error { return noError(r.probeNow()) }) // SoftHSM2 serves from memory until something fails
}

func (r *rig) restoreTokens() {
	r.Helper()
	if _, err := os.Stat(r.tokens()); !errors.Is(err, os.ErrNotExist) {
		r.Fatalf("something was made while the token was away: %v", err)
	}
	if err := os.Rename(r.tokens()+".away", r.tokens()); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) removeTokens() {
	r.Helper()
	if err := os.RemoveAll(r.tokens()); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) otherToken() {
	r.Helper()
	if err := mkdir(r.token); err != nil {
		r.Fatal(err)
	}
	softhsmtest.Another(r, r.token, r.token.Label)
}
