// Package cow is a map for the hot path: reads take no lock and allocate
// nothing, writes copy a small shard. It is safe for concurrent use.
package cow

import (
	"hash/maphash"
	"iter"
	"maps"
	"sync"
	"sync/atomic"
)

// shards bounds what a write copies: with a million entries, some 250.
const shards = 4096

// Map is a concurrent map. Make it with New.
type Map[K comparable, V any] struct {
	seed   maphash.Seed
	shards [shards]shard[K, V]
	size   atomic.Int64
}

type shard[K comparable, V any] struct {
	entries atomic.Pointer[map[K]V]
	write   sync.Mutex
}

// New returns an empty map.
func New[K comparable, V any]() *Map[K, V] {
	return &Map[K, V]{seed: maphash.MakeSeed()}
}

func (m *Map[K, V]) shard(k K) *shard[K, V] {
	return &m.shards[maphash.Comparable(m.seed, k)%shards]
}

// Load returns the value of k.
func (m *Map[K, V]) Load(k K) (v V, ok bool) {
	if entries := m.shard(k).entries.Load(); entries != nil {
		v, ok = (*entries)[k]
	}
	return v, ok
}

// Store sets the value of k.
func (m *Map[K, V]) Store(k K, v V) {
	s := m.shard(k)
	s.write.Lock()
	defer s.write.Unlock()
	entries := s.copy(1)
	if _, there := entries[k]; !there {
		m.size.Add(1)
	}
	entries[k] = v
	s.entries.Store(&entries)
}

// Delete removes k.
func (m *Map[K, V]) Delete(k K) {
	s := m.shard(k)
	s.write.Lock()
	defer s.write.Unlock()
	old := s.entries.Load()
	if old == nil {
		return
	}
	if _, there := (*old)[k]; !there {
		return
	}
	entries := s.copy(0)
	delete(entries, k)
	s.entries.Store(&entries)
	m.size.Add(-1)
}

func (s *shard[K, V]) copy(extra int) map[K]V {
	old := s.entries.Load()
	if old == nil {
		return make(map[K]V, extra)
	}
	entries := make(map[K]V, len(*old)+extra)
	maps.Copy(entries, *old)
	return entries
}

// Len returns the number of entries.
func (m *Map[K, V]) Len() int { return int(m.size.Load()) }

// All ranges over a snapshot of each shard in turn.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range m.shards {
			entries := m.shards[i].entries.Load()
			if entries == nil {
				continue
			}
			for k, v := range *entries {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}
