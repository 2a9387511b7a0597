package kms

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/keywright/keywright/kms/policy"
)

func TestParseID(t *testing.T) {
	for text, want := range map[string]ID{"0000000000000000": 0, "00000000000000ff": 255, "ffffffffffffffff": 1<<64 - 1, "00000000000000FF": 255} {
		if id, err := ParseID(text); err != nil || id != want {
			t.Errorf("ParseID(%q) = %v, %v", text, id, err)
		}
	}
	for _, text := range []string{"", "ff", "00000000000000f", "00000000000000fff", "000000000000000g", "+0000000000000ff", "-0000000000000ff", "0x000000000000ff", "0000_00000000ff"} {
		if _, err := ParseID(text); CodeOf(err) != InvalidArgument {
			t.Errorf("ParseID(%q): %v", text, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"0123456789abcdef", "", "+123456789abcdef", "0123456789ABCDEF", "0x23456789abcdef", "０123456789abc"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err == nil && id.String() != strings.ToLower(text) {
			t.Errorf("ParseID(%q) = %s", text, id)
		}
	})
}

func TestIDsInJSON(t *testing.T) {
	type ids struct {
		ID     ID
		Object ObjectID
	}
	want := ids{255, ObjectID{1, 2, 15: 255}}
	b := must[[]byte](t)(json.Marshal(want))
	if string(b) != `{"ID":"00000000000000ff","Object":"010200000000000000000000000000ff"}` {
		t.Errorf("the ids are written as %s", b)
	}
	var got ids
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("read back as %v, %v", got, err)
	}
	for _, bad := range []string{`{"ID":"ff"}`, `{"Object":"01"}`, `{"Object":"0102000000000000000000000000zzzz"}`, `{"Object":""}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, part := range map[string]string{
		"": "empty", strings.Repeat("a", 64): "64 bytes", "..": "character", ".a": "character", "-a": "character", "_a": "character",
		"a/b": "character", "a b": "character", "a\x00": "character", "a\n": "character", "\xff\xfe": "character", "ä": "character", "a%2f": "character", "@": "character",
	} {
		wantCode(t, checkName("key", name), InvalidArgument, "key", part)
	}
	for _, name := range []string{"a", "0", "A.b-c_d", strings.Repeat("a", 63), "a..b"} {
		if err := checkName("key", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	wantCode(t, checkNamespaceName("system"), InvalidArgument, "reserved")
	if err := checkNamespaceName("System"); err != nil {
		t.Errorf("names are case-sensitive: %v", err)
	}
}

// What a caller sent is shortened in messages, and stays valid text.
func TestClip(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("ä", 500), strings.Repeat("\xff", 500), strings.Repeat("a", 80)} {
		if clipped := clip(s); len(clipped) > 120 || (len(s) > 80 && !utf8.ValidString(clipped)) {
			t.Errorf("clip(%d bytes) = %q", len(s), clipped)
		}
	}
}

func FuzzPageToken(f *testing.F) {
	good := base64.RawURLEncoding.EncodeToString([]byte("namespace/pay"))
	for _, seed := range []string{"", good, good + "=", "!", "\r", base64.RawURLEncoding.EncodeToString([]byte("policy/@/all")), strings.Repeat("A", 5000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		after, err := openPageToken(prefixNamespace, token)
		if err == nil && token != "" && !strings.HasPrefix(after, prefixNamespace) {
			t.Errorf("%q leads to %q", token, after)
		}
		if err != nil && CodeOf(err) != InvalidArgument {
			t.Errorf("%q: %v", token, err)
		}
	})
}

// Page tokens of one listing are no use for another, and no bad one is more
// than a bad argument.
func TestPageTokens(t *testing.T) {
	in := newInstallation(t)
	for _, ns := range []string{"pay", "ops"} {
		in.namespace(ns)
		for n := range 3 {
			in.key(ns, fmt.Sprint("key", n), "")
		}
	}
	page := func(ns, token string) ([]Key, string, error) {
		return in.ListKeys(t.Context(), admin(), ListKeysRequest{Namespace: ns, PageSize: 2, PageToken: token})
	}
	_, next, err := page("pay", "")
	if err != nil || next == "" {
		t.Fatalf("first page: next %q, %v", next, err)
	}
	for _, token := range []string{"x", "%%%", next + "=", base64.RawURLEncoding.EncodeToString([]byte("secret/")), strings.Repeat("A", 10_000)} {
		_, _, err := page("pay", token)
		wantCode(t, err, InvalidArgument, "page_token")
	}
	long := base64.RawURLEncoding.EncodeToString([]byte(prefixNamespace + strings.Repeat("a", 600)))
	for _, token := range []string{long, base64.RawURLEncoding.EncodeToString([]byte(prefixNamespace + "\xff"))} {
		_, _, err := in.ListNamespaces(t.Context(), admin(), ListRequest{PageToken: token})
		wantCode(t, err, InvalidArgument, "page_token")
	}
	_, _, err = page("ops", next)
	wantCode(t, err, InvalidArgument, "page_token")
	_, _, err = in.ListKeys(t.Context(), admin(), ListKeysRequest{Namespace: "pay", PageToken: next, ShowDeleted: true})
	wantCode(t, err, InvalidArgument, "page_token")
	for _, size := range []int{-1, maxPage + 1} {
		_, _, err := in.ListKeys(t.Context(), admin(), ListKeysRequest{Namespace: "pay", PageSize: size})
		wantCode(t, err, InvalidArgument, "page_size", fmt.Sprint(maxPage))
	}
	var names []string
	for token, more := "", true; more; more = token != "" {
		var keys []Key
		if keys, token, err = page("pay", token); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			names = append(names, k.Name)
		}
	}
	if !slices.Equal(names, []string{"key0", "key1", "key2"}) {
		t.Errorf("the pages have %v", names)
	}
}

// Listings are in the order of their numbers, and no two records share a path.
func TestPathsAreOrderedAndDistinct(t *testing.T) {
	versions := []uint32{1, 2, 9, 10, 16, 255, 256, 1 << 31, 1<<32 - 1}
	if !slices.IsSortedFunc(versions, func(a, b uint32) int { return strings.Compare(pathVersion(1, 2, a), pathVersion(1, 2, b)) }) {
		t.Error("versions are out of order")
	}
	now := time.Unix(1_700_000_000, 1)
	job := due{Kind: dueRotate, Namespace: "pay", Key: 1}
	if early, late := pathDue(now, job), pathDue(now.Add(1000*time.Hour), job); early >= late {
		t.Errorf("%s is not before %s", early, late)
	}
	if exact := pathDue(now.Truncate(time.Second), job); exact >= pathDue(now, job) {
		t.Error("a job would be found before its time")
	}
	paths := map[string]bool{}
	for _, path := range []string{
		pathPolicy("", "a"), pathPolicy("a", "a"), pathKey(1, 2), pathKey(2, 1), pathKeyName(1, "a"), pathVersion(1, 2, 3), pathVersion(1, 3, 2),
		pathUsage(1, 2, 3), pathDomain(1, 2), pathDomain(2, 1), pathNamespace("a"), pathKeyID(1), pathHead, pathInstallation,
		pathDue(now, job), pathDue(now, due{Kind: dueDeleteKey, Key: 1}), pathDue(now, due{Kind: dueDestroyVersion, Key: 1, Version: 1}),
		pathDue(now, due{Kind: dueDestroyVersion, Key: 1, Version: 2}), materialPlace(1, 2, 3, "A"),
	} {
		if paths[path] {
			t.Errorf("two records are at %s", path)
		}
		paths[path] = true
	}
}

// Idempotency keys belong to their principal: no other's can be met by chance or
// by intent.
func TestIdempotencyPathsAreApart(t *testing.T) {
	in := newInstallation(t)
	path := func(call Call, key string) string { return pathIdempotent(in.begin(call, policy.CreateKey), key) }
	a := path(as(policy.User, "a"), "k")
	for what, other := range map[string]string{
		"another key":      path(as(policy.User, "a"), "k2"),
		"another user":     path(as(policy.User, "b"), "k"),
		"another type":     path(as(policy.Token, "a"), "k"),
		"a shifted border": path(as(policy.User, "a\x00k"), ""),
	} {
		if other == a {
			t.Errorf("%s has the same record", what)
		}
	}
}
