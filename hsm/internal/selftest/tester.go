package selftest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// Options say how to test.
type Options struct {
	// TokenObjects makes keys that the token keeps until they are removed, for
	// tokens that know no others.
	TokenObjects bool
	// ImpliedUses leaves out of templates which uses a key has not.
	ImpliedUses bool
	// Quick tries no RSA keys of more than 2048 bits.
	Quick bool
	// Progress, if not nil, hears what is tried next.
	Progress func(string)
}

// Tester tests one token through one login. It runs while the module cannot be
// finalised.
type Tester struct {
	options    Options
	connection *cryptoki.Connection
	session    *cryptoki.Session
	mechanisms map[uint]cryptoki.KeySizes
	made       []cryptoki.Handle
	pairs      map[string]pair // RSA keys, which take long to make
}

// pair is a key that was made: of a secret key the public handle is 0.
type pair struct{ public, private cryptoki.Handle }

// Run tests the token. The error is one that ended the test early: the token no
// longer answers, or does not let go of what was made.
func Run(c *cryptoki.Connection, o Options) (report Report, err error) {
	t := &Tester{options: o, connection: c, pairs: map[string]pair{}}
	if t.mechanisms, err = c.Mechanisms(); err != nil {
		return Report{}, err
	}
	if t.session, err = c.Fresh(); err != nil {
		return Report{}, err
	}
	defer func() {
		err = errors.Join(err, t.clean())
		t.session.Close()
	}()
	report = t.test()
	return report, t.session.LoggedIn()
}

func (t *Tester) test() Report {
	var r Report
	r.SessionObjects = t.sessionObjects()
	r.Random = t.random()
	for _, row := range algorithm.All() {
		t.progress(row.Name)
		r.Algorithms = append(r.Algorithms, t.algorithm(row))
	}
	t.progress("RSA-OAEP's hashes")
	r.OAEPHashes = t.oaepHashes()
	t.progress("AES-GCM")
	r.GCM = t.gcm()
	t.progress("AES-KW")
	r.KeyWrap = t.keyWrap()
	t.progress("objects and sessions")
	r.DuplicateIDs = t.duplicateIDs()
	r.Origin = t.origin()
	r.Sessions = t.sessions()
	r.RootWrap = rootWraps(r, t.has)
	return r
}

func (t *Tester) progress(what string) {
	if t.options.Progress != nil {
		t.options.Progress(what)
	}
}

func (t *Tester) has(mechanism uint) bool {
	_, ok := t.mechanisms[mechanism]
	return ok
}

// clean removes all that was made.
func (t *Tester) clean() error {
	var errs []error
	for _, object := range slices.Backward(t.made) {
		err := t.session.Discard(object)
		if code := pkcs11.Error(0); errors.As(err, &code) && code == pkcs11.CKR_OBJECT_HANDLE_INVALID {
			err = nil // gone with its pair
		}
		errs = append(errs, err)
	}
	t.made = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keys made by the self-test remain, with the label %q: %w", label, err)
	}
	return nil
}

// settle replaces the session when a failure tells that an operation was left in it.
// Session objects go with it.
func (t *Tester) settle(err error) {
	code := pkcs11.Error(0)
	if errors.As(err, &code) && code == pkcs11.CKR_OPERATION_ACTIVE {
		_ = t.session.Renew()
		t.made, t.pairs = nil, map[string]pair{}
	}
}

// label is what every key of a test is called, should one remain.
const label = "keywright self-test, to be removed"

func newID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// temporary makes a template one of a session object, unless there are none.
func (t *Tester) temporary(template []*pkcs11.Attribute) []*pkcs11.Attribute {
	var out []*pkcs11.Attribute
	for _, a := range template {
		if a.Type != pkcs11.CKA_TOKEN {
			out = append(out, a)
		}
	}
	return append(out, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, t.options.TokenObjects))
}

// make makes a key by a recipe.
func (t *Tester) make(row *algorithm.Algorithm, r algorithm.Recipe) (pair, error) {
	r.Implied = t.options.ImpliedUses
	public, private := row.Templates(newID(), label, r)
	return t.makeOf(r.Generate, public, private)
}

// makeOf makes a key of templates; without a public one it is a secret key.
func (t *Tester) makeOf(generate uint, public, private []*pkcs11.Attribute) (p pair, err error) {
	if public == nil {
		p.private, err = t.session.Make(generate, t.temporary(private))
		if err == nil {
			t.made = append(t.made, p.private)
		}
		return p, err
	}
	p.public, p.private, err = t.session.MakePair(generate, t.temporary(public), t.temporary(private))
	if err == nil {
		t.made = append(t.made, p.public, p.private)
	}
	return p, err
}

// says is the short form of an error: a return value's name, or the text.
func says(err error) string {
	if err == nil {
		return "CKR_OK"
	}
	code := pkcs11.Error(0)
	if errors.As(err, &code) {
		text := code.Error()
		if at := strings.LastIndex(text, "CKR_"); at >= 0 {
			return text[at:]
		}
		return fmt.Sprintf("0x%x", uint(code))
	}
	return err.Error()
}
