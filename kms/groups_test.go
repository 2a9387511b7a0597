package kms

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

func (in *testInstallation) put(namespace, name, text string) Policy {
	in.t.Helper()
	return must[Policy](in.t)(in.PutPolicy(in.t.Context(), admin(), PutPolicyRequest{Namespace: namespace, Name: name, Text: text}))
}

func (in *testInstallation) putGroup(name string, members ...string) Group {
	in.t.Helper()
	return must[Group](in.t)(in.PutGroup(in.t.Context(), admin(), PutGroupRequest{Name: name, Members: members}))
}

func TestGroupsTakeForceAtOnce(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.put("", "ops", `permit (principal in Group::"ops", action in Action::"encrypter", resource);`)
	late := as(policy.Token, "late")
	use := func() error {
		_, err := in.Encrypt(t.Context(), late, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
		return err
	}
	wantCode(t, use(), PermissionDenied)
	made := in.putGroup("ops", `User::"other"`, `Token::"late"`)
	if err := use(); err != nil {
		t.Fatalf("as a member: %v", err)
	}
	in.close()
	in.open()
	if err := use(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	again := in.putGroup("ops", `User::"other"`)
	wantCode(t, use(), PermissionDenied)
	if !again.Created.Equal(made.Created) || again.Revision != made.Revision+1 {
		t.Errorf("written again: %+v, before: %+v", again, made)
	}
	in.putGroup("ops", `Token::"late"`)
	if err := in.DeleteGroup(t.Context(), admin(), GroupRef{Name: "ops"}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, use(), PermissionDenied)
	wantCode(t, in.DeleteGroup(t.Context(), admin(), GroupRef{Name: "ops"}), NotFound, "ListGroups")
	_, err := in.GetGroup(t.Context(), admin(), GroupRef{Name: "ops"})
	wantCode(t, err, NotFound)
}

func TestGroupsAreReadAndListed(t *testing.T) {
	in := newInstallation(t)
	for i := range 3 {
		in.putGroup(fmt.Sprint("g", i), fmt.Sprintf(`Token::"t%d"`, i))
	}
	got := must[Group](t)(in.GetGroup(t.Context(), admin(), GroupRef{Name: "g1"}))
	if !slices.Equal(got.Members, []string{`Token::"t1"`}) || got.Created.IsZero() {
		t.Errorf("got %+v", got)
	}
	first, next, err := in.ListGroups(t.Context(), admin(), ListRequest{PageSize: 2})
	if err != nil || len(first) != 2 || next == "" {
		t.Fatalf("first page %v, %q, %v", first, next, err)
	}
	rest, next, err := in.ListGroups(t.Context(), admin(), ListRequest{PageSize: 2, PageToken: next})
	if err != nil || len(rest) != 1 || rest[0].Name != "g2" || next != "" {
		t.Errorf("second page %v, %q, %v", rest, next, err)
	}
	for _, bad := range []PutGroupRequest{{}, {Name: "a/b"}, {Name: "g", Members: []string{"app"}}, {Name: "g", Members: []string{`Token::"a"`, `Token::"a"`}}} {
		_, err := in.PutGroup(t.Context(), admin(), bad)
		wantCode(t, err, InvalidArgument)
	}
}

// TestGroupsBelongToTheInstallation: whoever has all rights over a namespace has
// none over groups, which reach further.
func TestGroupsBelongToTheInstallation(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.put("", "paymaster", `permit (principal == User::"paymaster", action, resource in Namespace::"pay");`)
	master := as(policy.User, "paymaster")
	must[Policy](t)(in.PutPolicy(t.Context(), master, PutPolicyRequest{Namespace: "pay", Name: "own", Text: `permit (principal, action, resource in Namespace::"pay");`}))
	in.putGroup("ops")
	_, err := in.PutGroup(t.Context(), master, PutGroupRequest{Name: "ops", Members: []string{`User::"paymaster"`}})
	wantCode(t, err, PermissionDenied)
	wantCode(t, in.DeleteGroup(t.Context(), master, GroupRef{Name: "ops"}), PermissionDenied)
	_, err = in.GetGroup(t.Context(), master, GroupRef{Name: "ops"})
	wantCode(t, err, PermissionDenied)
	_, _, err = in.ListGroups(t.Context(), master, ListRequest{})
	wantCode(t, err, PermissionDenied)
}

func TestAnotherServerFollowsGroups(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.put("", "ops", `permit (principal in Group::"ops", action in Action::"encrypter", resource);`)
	other := in.second()
	use := func() error {
		_, err := other.Encrypt(t.Context(), as(policy.Token, "late"), &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
		return err
	}
	wantCode(t, use(), PermissionDenied)
	in.putGroup("ops", `Token::"late"`)
	for deadline := time.Now().Add(time.Minute); use() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the other server does not learn of a new member")
		}
	}
	if err := in.DeleteGroup(t.Context(), admin(), GroupRef{Name: "ops"}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); use() == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the other server does not learn of a deleted group")
		}
	}
}

func TestLockout(t *testing.T) {
	in := newInstallation(t) // "all" lets User::"root" do everything
	refused := func(what string, err error) {
		t.Helper()
		wantCode(t, err, FailedPrecondition, "nobody could put policies", "confirm_lockout")
		if _, err := in.GetPolicy(t.Context(), admin(), PolicyRef{Name: "all"}); err != nil {
			t.Fatalf("after %s was refused: %v", what, err)
		}
	}
	ctx, harmless := t.Context(), `permit (principal == Token::"app", action, resource in Namespace::"pay");`
	refused("a deletion", in.DeletePolicy(ctx, admin(), PolicyRef{Name: "all"}))
	refused("a deletion confirmed wrongly", in.DeletePolicy(ctx, admin(), PolicyRef{Name: "all", ConfirmLockout: "yes"}))
	_, err := in.PutPolicy(ctx, admin(), PutPolicyRequest{Name: "all", Text: harmless})
	refused("a replacement", err)
	_, err = in.PutPolicy(ctx, admin(), PutPolicyRequest{Name: "stop", Text: `forbid (principal, action in Action::"admin", resource);`})
	refused("a forbid", err)

	// Nor may a namespace shut everybody out of itself.
	in.namespace("pay")
	stop := PutPolicyRequest{Namespace: "pay", Name: "stop", Text: `forbid (principal, action, resource in Namespace::"pay");`}
	_, err = in.PutPolicy(ctx, admin(), stop)
	refused("a namespace's forbid", err)
	stop.ConfirmLockout = "stop"
	must[Policy](t)(in.PutPolicy(ctx, admin(), stop))
	wantCode(t, in.DeletePolicy(ctx, admin(), PolicyRef{Namespace: "pay", Name: "stop"}), PermissionDenied)

	in.put("", "ops", `permit (principal in Group::"ops", action, resource);`)
	refused("a deletion with an empty group", in.DeletePolicy(ctx, admin(), PolicyRef{Name: "all"}))
	in.putGroup("ops", `User::"root"`)
	if err := in.DeletePolicy(ctx, admin(), PolicyRef{Name: "all"}); err != nil {
		t.Fatalf("with a group that governs: %v", err)
	}
	_, err = in.PutGroup(ctx, admin(), PutGroupRequest{Name: "ops"})
	wantCode(t, err, FailedPrecondition, "confirm_lockout: ops")
	wantCode(t, in.DeleteGroup(ctx, admin(), GroupRef{Name: "ops"}), FailedPrecondition)
	in.putGroup("ops", `User::"root"`, `User::"other"`)
	if err := in.DeleteGroup(ctx, admin(), GroupRef{Name: "ops", ConfirmLockout: "ops"}); err != nil {
		t.Fatalf("confirmed: %v", err)
	}
	_, err = in.PutPolicy(ctx, admin(), PutPolicyRequest{Name: "all", Text: harmless})
	wantCode(t, err, PermissionDenied)
}

func TestChangesOfPoliciesAreInTheLog(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	text := `permit (principal, action, resource in Namespace::"pay");`
	written := in.put("pay", "own", text)
	in.putGroup("ops", `User::"a"`, `User::"b"`)
	if err := in.DeletePolicy(t.Context(), admin(), PolicyRef{Namespace: "pay", Name: "own"}); err != nil {
		t.Fatal(err)
	}
	outcome := func(action policy.Action) map[string]string {
		t.Helper()
		for _, e := range in.entries(audit.Filter{Action: string(action)}) {
			if e.Phase == audit.PhaseOutcome {
				return e.Details
			}
		}
		t.Fatalf("%s has no outcome", action)
		return nil
	}
	for _, test := range []struct {
		action policy.Action
		want   map[string]string
	}{
		{policy.PutPolicy, map[string]string{"policy": "own", "namespace": "pay", "text": text, "revision": fmt.Sprint(written.Revision)}},
		{policy.PutGroup, map[string]string{"group": "ops", "members": "User::\"a\"\nUser::\"b\"", "revision": fmt.Sprint(written.Revision + 1)}},
		{policy.DeletePolicy, map[string]string{"policy": "own", "namespace": "pay", "text": "", "revision": fmt.Sprint(written.Revision + 2)}},
	} {
		got := outcome(test.action)
		for key, want := range test.want {
			if got[key] != want {
				t.Errorf("%s has %s %q, want %q", test.action, key, got[key], want)
			}
		}
	}
	if entries := in.entries(audit.Filter{Action: EventInitializeBegin}); len(entries) != 1 || entries[0].Details["policy/@/all"] != testPolicies[0].Text {
		t.Errorf("the beginning is logged as %+v", entries)
	}
}
