package cow

import (
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
)

func TestMapAgainstModel(t *testing.T) {
	m, model := New[int, int](), map[int]int{}
	for range 20_000 {
		k, v := rand.N(2000), rand.Int()
		switch rand.N(3) {
		case 0:
			m.Delete(k)
			delete(model, k)
		default:
			m.Store(k, v)
			model[k] = v
		}
		if got, ok := m.Load(k); ok != has(model, k) || got != model[k] {
			t.Fatalf("Load(%d) = %d, %v", k, got, ok)
		}
		if m.Len() != len(model) {
			t.Fatalf("Len() = %d, want %d", m.Len(), len(model))
		}
	}
	if got := maps.Collect(m.All()); !maps.Equal(got, model) {
		t.Errorf("All() has %d entries, want %d", len(got), len(model))
	}
	for range m.All() {
		break // must not call again
	}
}

func has(m map[int]int, k int) bool {
	_, ok := m[k]
	return ok
}

func TestEmptyMap(t *testing.T) {
	m := New[string, *int]()
	if v, ok := m.Load("none"); v != nil || ok {
		t.Errorf("Load = %v, %v", v, ok)
	}
	m.Delete("none")
	if m.Len() != 0 || len(maps.Collect(m.All())) != 0 {
		t.Error("an empty map has entries")
	}
}

// Writers at once lose nothing, readers see whole entries.
func TestMapAtOnce(t *testing.T) {
	m := New[int, [2]int]()
	var group sync.WaitGroup
	const writers, each = 8, 2000
	for w := range writers {
		group.Go(func() {
			for i := range each {
				k := i*writers + w
				m.Store(k, [2]int{k, -k})
				if i%2 == 0 {
					m.Delete(k)
				}
			}
		})
		group.Go(func() {
			for range each {
				if v, ok := m.Load(rand.N(writers * each)); ok && v[0] != -v[1] {
					t.Errorf("half an entry: %v", v)
				}
			}
		})
	}
	group.Wait()
	if want := writers * each / 2; m.Len() != want || len(maps.Collect(m.All())) != want {
		t.Errorf("Len() = %d, want %d", m.Len(), want)
	}
}

func TestLoadAllocatesNothing(t *testing.T) {
	m := New[[2]string, int]()
	for i := range 10_000 {
		m.Store([2]string{"ns", string(rune(i))}, i)
	}
	if n := testing.AllocsPerRun(100, func() { m.Load([2]string{"ns", "x"}) }); n != 0 {
		t.Errorf("Load allocates %v times", n)
	}
}
