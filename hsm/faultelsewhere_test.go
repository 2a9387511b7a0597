package hsm_test

import (
	"errors"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// elsewhere is other software that uses the same token, in this process. Where a
// worker has the device's login, or nobody has one, it logs in.
func (r *rig) elsewhere() *outsider {
	r.Helper()
	if p11 := pkcs11.New(r.token.Module); p11.Initialize() == nil {
		r.Cleanup(func() { _ = p11.Finalize() })
	}
	o := newOutsider(r, r.token)
	err := o.p11.Login(o.session, pkcs11.CKU_USER, softhsmtest.PIN(r, r.token))
	if !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		o.must(err)
	}
	return o
}

// duplicateLabel tells the duplicate from the root, whatever their handles are.
const duplicateLabel = "duplicate"

// duplicate makes another key under the root's id.
func (o *outsider) duplicate(root hsm.Root) {
	o.Helper()
	before := o.find(idAttribute(root.ID))
	o.aes(root.ID, false)
	for _, handle := range o.find(idAttribute(root.ID)) {
		if handle != before[0] {
			o.label(handle, []byte(duplicateLabel))
		}
	}
}

func (o *outsider) destroyDuplicate() {
	o.Helper()
	found := o.find(pkcs11.NewAttribute(pkcs11.CKA_LABEL, duplicateLabel))
	if len(found) != 1 {
		o.Fatalf("%d duplicates", len(found))
	}
	o.must(o.p11.DestroyObject(o.session, found[0]))
}

func (o *outsider) label(object pkcs11.ObjectHandle, label []byte) {
	o.Helper()
	o.must(o.p11.SetAttributeValue(o.session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}))
}

// namesake makes a key of the root's label, under an id of its own.
func (o *outsider) namesake(root hsm.Root) {
	o.Helper()
	id := hsm.KeyID{0xfe}
	o.aes(id, false)
	o.label(o.find(idAttribute(id))[0], o.attribute(o.find(idAttribute(root.ID))[0], pkcs11.CKA_LABEL))
}

func (o *outsider) attribute(object pkcs11.ObjectHandle, attribute uint) []byte {
	o.Helper()
	got, err := o.p11.GetAttributeValue(o.session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	o.must(err)
	return got[0].Value
}

// Somebody deletes the root: the token is not used any more, and no other root is
// made because none was found.
func TestFaultRootDeletedElsewhere(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		r.elsewhere().destroyAll(r.root.ID)
		forgetHandles(r)
		f := fault{name: "root deleted elsewhere", call: (*rig).unwrap, want: hsm.ErrUnavailable, reason: hsm.ErrRootNotFound, class: hsm.ClassDevice, health: fallsSick}
		r.staysAway(f)
		if n := len(r.elsewhere().find(idAttribute(r.root.ID))); n != 0 {
			t.Fatalf("%d objects: a root was made because none was found", n)
		}
	})
}

// Somebody deletes the root and makes another key under its id: it is never used.
func TestFaultRootReplacedElsewhere(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		o := r.elsewhere()
		o.destroyAll(r.root.ID)
		o.aes(r.root.ID, false)
		forgetHandles(r)
		f := fault{name: "root replaced elsewhere", call: (*rig).unwrap, want: hsm.ErrUnavailable, reason: hsm.ErrWrongRoot, class: hsm.ClassDevice, health: fallsSick}
		r.staysAway(f)
		if r.wrap() == nil {
			t.Fatal("wrapped under an impostor")
		}
	})
}

// staysAway checks a fault that nothing mends but an operator.
func (r *rig) staysAway(f fault) {
	r.Helper()
	o := observation{fault: f.name, health: f.judge(r, time.Now()), recovery: "never: the root is gone"}
	o.callers = f.callers(r)
	f.staysTrue(r)
	r.leavesNothing()
	r.report(o)
}
