package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// feed runs the watch that feeds all caches, until ctx ends. When etcd has compacted what was not seen yet, the caches
// are compared with what is stored, and their watchers see the differences as events.
func (s *Store) feed(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.watchFrom(ctx, s.fed.Load()+1)
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("The watch of etcd ended, and is started again", "revision", s.fed.Load(), "err", err)
		if errors.Is(err, rpctypes.ErrCompacted) {
			err = s.resync(ctx)
		}
		if err != nil {
			sleep(ctx, 200*time.Millisecond)
		}
	}
}

// sleep waits before something is tried again that failed for reasons outside.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *Store) watchFrom(ctx context.Context, rev int64) error {
	for resp := range s.client.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(rev), clientv3.WithProgressNotify()) {
		if err := resp.Err(); err != nil {
			return err
		}
		s.deliver(resp.Events)
		// The revision of the header may be ahead of events that are still to come.
		if n := len(resp.Events); n > 0 {
			s.setFed(resp.Events[n-1].Kv.ModRevision)
		} else if resp.IsProgressNotify() {
			s.setFed(resp.Header.Revision)
		}
	}
	return errors.New("the watch was closed")
}

// change is an event of etcd on its way into a cache.
type change struct {
	key   string // within the cache
	value []byte // nil: deleted
	rev   int64
	// created says that there was no such key before.
	created bool
}

// deliver hands events to their caches. All events of a response reach a cache in one step, so that nobody sees half of
// a transaction.
func (s *Store) deliver(events []*clientv3.Event) {
	if len(events) == 0 {
		return
	}
	caches := s.registered()
	var first *Cache
	batch := make([]change, 0, len(events))
	var others map[*Cache][]change // rare: only when a response has events of several caches
	for _, ev := range events {
		c, key := cacheOf(caches, ev.Kv.Key)
		if c == nil {
			continue
		}
		ch := change{key: key, rev: ev.Kv.ModRevision}
		if ev.Type == mvccpb.Event_PUT {
			ch.value = ev.Kv.Value
			ch.created = ev.IsCreate()
			if ch.value == nil {
				ch.value = []byte{}
			}
		}
		if first == nil {
			first = c
		}
		if c == first {
			batch = append(batch, ch)
			continue
		}
		if others == nil {
			others = map[*Cache][]change{}
		}
		others[c] = append(others[c], ch)
	}
	if first != nil {
		first.apply(batch)
	}
	for c, batch := range others {
		c.apply(batch)
	}
}

// cacheOf finds the cache that a key belongs to, and the key within it. A prefix has one part ("pods") or more
// ("services/specs", "example.com/widgets").
func cacheOf(caches map[string]*Cache, key []byte) (*Cache, string) {
	if len(key) <= len(root) {
		return nil, ""
	}
	key = key[len(root):]
	for i, b := range key {
		if b == '/' {
			if c := caches[string(key[:i])]; c != nil {
				return c, string(key[i+1:])
			}
		}
	}
	return nil, ""
}

// resync brings all caches to what is stored now.
func (s *Store) resync(ctx context.Context) error {
	rev, err := s.Rev(ctx)
	if err != nil {
		return err
	}
	for prefix, c := range s.registered() {
		if err := c.resync(ctx, rev); err != nil {
			return fmt.Errorf("comparing the cache of %s with etcd: %w", prefix, err)
		}
	}
	s.setFed(rev)
	return nil
}

// pageSize is how many objects are read from etcd at a time.
const pageSize = 1000

// readAll reads all keys of a cache at one revision (0: the present one), which it returns.
func (s *Store) readAll(ctx context.Context, c *Cache, rev int64, fn func(kv *mvccpb.KeyValue)) (int64, error) {
	from, end := c.prefix, clientv3.GetPrefixRangeEnd(c.prefix)
	for {
		began := time.Now()
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(rev))
		s.metrics.observe("list", c.measured(), began, err)
		if err != nil {
			return 0, err
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			fn(kv)
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return rev, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
