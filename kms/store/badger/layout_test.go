package badger

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

var sampleEvents = []store.Event{
	{Key: "a", Value: []byte("one"), Revision: 7},
	{Key: "b", Revision: 7, Deleted: true},
	{Key: "c", Value: []byte{}, Revision: 7},
}

func TestChangesRoundTrip(t *testing.T) {
	encoded := encodeChanges([]store.Event{sampleEvents[2], sampleEvents[0], sampleEvents[1]})
	got, err := decodeChanges(7, encoded)
	if want := (store.Changes{Revision: 7, Events: sampleEvents}); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("decoded %v, %v; want %v", got, err, want)
	}
	whole := map[int]bool{7: true, 10: true} // where one event ends and the next begins
	for cut := range encoded {
		if _, err := decodeChanges(7, encoded[:cut]); !whole[cut] && !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("cut at %d: %v, want ErrCorrupt", cut, err)
		}
	}
}

func TestHeadRoundTrip(t *testing.T) {
	for _, h := range []head{{1, 1}, {1, 2}, {300, 5}, {1<<64 - 1, 1<<64 - 1}} {
		if got, err := decodeHead(h.encode()); err != nil || got != h {
			t.Errorf("decoded %v, %v; want %v", got, err, h)
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, 15), make([]byte, 16), make([]byte, 17), head{1, 3}.encode(), head{0, 1}.encode()} {
		if _, err := decodeHead(bad); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("head %x: %v, want ErrCorrupt", bad, err)
		}
	}
}

func FuzzDecodeChanges(f *testing.F) {
	seed := encodeChanges(sampleEvents)
	if _, err := decodeChanges(1, seed); err != nil {
		f.Fatalf("seed: %v", err)
	}
	f.Add(seed)
	f.Add([]byte{putTag, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{deleteTag + 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := decodeChanges(1, b)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) || len(changes.Events) != 0 {
				t.Fatalf("error %v with %d events", err, len(changes.Events))
			}
			return
		}
		encoded := encodeChanges(changes.Events)
		again, err := decodeChanges(1, encoded)
		if err != nil || !bytes.Equal(encodeChanges(again.Events), encoded) {
			t.Fatalf("does not round trip: %x, %v", encoded, err)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	seed := encodeRecord(9, []byte("value"))
	if r, err := decodeRecord("k", seed); err != nil || r.Revision != 9 || string(r.Value) != "value" {
		f.Fatalf("seed: %v, %v", r, err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord("k", b)
		if err == nil && !bytes.Equal(encodeRecord(r.Revision, r.Value), b) {
			t.Fatalf("does not round trip: %x", b)
		}
		if (err != nil) != (len(b) < revisionBytes) {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
	})
}
