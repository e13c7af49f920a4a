package store

import (
	"slices"
	"time"

	"github.com/google/btree"
)

// snapshot is the state of a cache at some revision. It shares its memory with the cache's tree and with other
// snapshots, as far as they are the same.
type snapshot struct {
	tree *btree.BTreeG[entry] // only read
	// It is the state at all revisions from rev on, and, if until is not 0, below until. Under the cache's lock.
	rev, until int64
	kept       time.Time
}

const (
	// A list in pages goes on in the snapshot it began in; so many are kept for so long.
	keepSnapshots = 16
	keepFor       = 5 * time.Minute
)

// snapshot returns the present state.
func (c *Cache) snapshot() *snapshot {
	c.mu.RLock()
	s := c.shared
	c.mu.RUnlock()
	if s != nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshotLocked()
}

func (c *Cache) snapshotLocked() *snapshot {
	if c.shared == nil {
		c.shared = &snapshot{tree: c.tree.Clone(), rev: c.last}
	}
	return c.shared
}

// keep keeps a snapshot for those who go on with a list.
func (c *Cache) keep(s *snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.kept = time.Now()
	if !slices.Contains(c.kept, s) {
		if len(c.kept) >= keepSnapshots {
			oldest := slices.MinFunc(c.kept, func(a, b *snapshot) int { return a.kept.Compare(b.kept) })
			c.kept = slices.DeleteFunc(c.kept, func(x *snapshot) bool { return x == oldest })
		}
		c.kept = append(c.kept, s)
	}
}

// forget drops the snapshots and events that are too old to be asked for, and the indexes that nobody asks.
func (c *Cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = slices.DeleteFunc(c.kept, func(s *snapshot) bool { return time.Since(s.kept) >= keepFor })
	c.window.expire(time.Now().Unix())
	c.dropIdleIndexes()
}

// snapshotAt returns the state at exactly rev, which the feed has reached; nil if it is not in memory.
func (c *Cache) snapshotAt(rev int64) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rev >= c.last {
		return c.snapshotLocked()
	}
	for _, s := range c.kept {
		if s.rev <= rev && (s.until == 0 || rev < s.until) {
			return s
		}
	}
	return nil
}
