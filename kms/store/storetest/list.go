package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

func testListOrder(t *testing.T, s store.Store) {
	keys := []string{"b", "a/1", "a", "a/10", "a/2", "a0", "a\x00", "ä", "a/\U0010ffff", "A", "a.", "\U0010ffff", "a/1/x"}
	for _, key := range keys {
		commit(t, s, puts(key, key))
	}
	slices.Sort(keys)
	for _, prefix := range []string{"", "a", "a/", "a/1", "b", "c", "ä", "\U0010ffff", "a/\U0010ffff", "a\x00", "A"} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		for _, limit := range []int{-1, 0, 1, 2, 5, 100_000} {
			records, err := listAll(t.Context(), s, prefix, limit)
			if err != nil {
				t.Fatalf("List(%q): %v", prefix, err)
			}
			var got []string
			for _, r := range records {
				got = append(got, string(r.Value))
			}
			if !slices.Equal(got, want) {
				t.Errorf("List(%q) by %d = %q, want %q", prefix, limit, got, want)
			}
		}
	}
}

func testListPages(t *testing.T, s store.Store) {
	const count = store.DefaultPageRecords + 50
	fill(t, s, "p/", count, 8)
	commit(t, s, puts("q", ""))
	head := commit(t, s, deletes("p/00500"))

	page, err := s.List(t.Context(), "p/", "", 0)
	if err != nil || len(page.Records) != store.DefaultPageRecords || page.Next == "" || page.Revision != head {
		t.Fatalf("first page: %d records, next %q, revision %d, %v", len(page.Records), page.Next, page.Revision, err)
	}
	// A cursor outlives the record that it came from, and sees what changed since.
	last := page.Records[len(page.Records)-1].Key
	txn := deletes(last)
	txn.Puts = []store.Put{{Key: last + "new"}}
	commit(t, s, txn)
	page, err = s.List(t.Context(), "p/", page.Next, 0)
	if err != nil || len(page.Records) != 50 || page.Next != "" || page.Revision != head+1 {
		t.Fatalf("second page: %d records, next %q, revision %d, %v", len(page.Records), page.Next, page.Revision, err)
	}
	if got := page.Records[0].Key; got != last+"new" {
		t.Fatalf("second page begins with %q, want %q", got, last+"new")
	}
	page, err = s.List(t.Context(), "p/", "", 50)
	if err != nil || len(page.Records) != 50 || page.Next == "" {
		t.Fatalf("page of 50: %d records, next %q, %v", len(page.Records), page.Next, err)
	}
}

func testListPageBytes(t *testing.T, s store.Store) {
	const count, size = 12, store.MaxValueBytes
	fill(t, s, "", count, size)
	pages, seen, after := 0, 0, ""
	for {
		page, err := s.List(t.Context(), "", after, 0)
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if n := len(page.Records); n == 0 || n > store.MaxPageBytes/size+1 {
			t.Fatalf("page of %d records of %d bytes", n, size)
		}
		pages, seen = pages+1, seen+len(page.Records)
		if after = page.Next; after == "" {
			break
		}
	}
	if seen != count || pages < 2 {
		t.Fatalf("%d records in %d pages, want %d in some", seen, pages, count)
	}
}

func testListInvalid(t *testing.T, s store.Store) {
	commit(t, s, puts("a/1", "", "b/1", ""))
	long := strings.Repeat("k", store.MaxKeyBytes+1)
	for _, args := range [][2]string{{"a/", "b/1"}, {"a/", "a"}, {long, ""}, {"", long}, {"", "\xff"}} {
		_, err := s.List(t.Context(), args[0], args[1], 0)
		wantError(t, fmt.Sprintf("List(%.10q, %.10q)", args[0], args[1]), err, store.ErrInvalid)
	}
}

// fill writes count records of the given size under prefix, numbered from 0.
func fill(t *testing.T, s store.Store, prefix string, count, size int) {
	t.Helper()
	value := strings.Repeat("v", size)
	most := min(store.MaxTxnChanges, store.MaxTxnBytes/(size+len(prefix)+5))
	for from := 0; from < count; from += most {
		var txn store.Txn
		for i := from; i < min(from+most, count); i++ {
			txn.Puts = append(txn.Puts, store.Put{Key: fmt.Sprintf("%s%05d", prefix, i), Value: []byte(value)})
		}
		commit(t, s, txn)
	}
}
