package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// List returns the objects that match, in key order, all from one state. It fails with ErrExpired and ErrFuture when
// the state that is asked for is not there any more, or not there yet.
func (c *Cache) List(ctx context.Context, o ListOptions) (*List, error) {
	m := newMatcher(c.resource.Namespaced, o.Namespace, o.Labels, o.Fields)
	q := &query{m: m, limit: math.MaxInt, after: o.Continue}
	if o.Limit > 0 {
		q.limit = int(o.Limit)
	}
	if o.Match == MatchExact {
		return c.listAt(ctx, q, o.Rev)
	}
	minRev := int64(-1)
	if o.Match == MatchNotOlder {
		minRev = o.Rev
	}
	if err := c.await(ctx, minRev); err != nil {
		return nil, err
	}
	fed := c.store.fed.Load()
	if list, ok, err := c.listIndexed(q, fed); ok || err != nil {
		return list, err
	}
	snap := c.snapshot()
	if err := q.scan(snap); err != nil {
		return nil, err
	}
	if q.more {
		c.keep(snap)
	}
	return q.list(max(fed, snap.rev)), nil
}

// listAt lists the state at exactly rev: from memory if it is there, else from etcd.
func (c *Cache) listAt(ctx context.Context, q *query, rev int64) (*List, error) {
	if rev <= 0 {
		return nil, fmt.Errorf("listing %s at revision %d: there is no such revision", c.resource.Prefix, rev)
	}
	if err := c.await(ctx, rev); err != nil {
		return nil, err
	}
	snap := c.snapshotAt(rev)
	if snap == nil {
		return c.listEtcd(ctx, q, rev)
	}
	if err := q.scan(snap); err != nil {
		return nil, err
	}
	if q.more {
		c.keep(snap)
	}
	return q.list(rev), nil
}

// listIndexed answers a list of a single name, or one that an index can answer.
func (c *Cache) listIndexed(q *query, fed int64) (*List, bool, error) {
	single := q.m.name != "" && (q.m.namespace != "" || !c.resource.Namespaced)
	if !single {
		c.ensureIndex(q.m)
	}
	c.mu.RLock()
	candidates, ok := c.candidatesLocked(q.m)
	rev := c.revLocked(fed)
	if !ok {
		c.mu.RUnlock()
		return nil, false, nil
	}
	// The slice is the index's own: what is taken of it is copied before the lock is gone.
	objects := make([]*Object, 0, len(candidates))
	for _, o := range candidates {
		if o.Key > q.after {
			objects = append(objects, o)
		}
	}
	var snap *snapshot
	c.mu.RUnlock()
	for _, o := range objects {
		if done, err := q.add(o); err != nil {
			return nil, false, err
		} else if done {
			break
		}
	}
	if q.more { // the pages to come are those of this state
		c.mu.Lock()
		if c.last <= rev {
			snap = c.snapshotLocked()
		}
		c.mu.Unlock()
		if snap == nil { // it has changed: begin again with a snapshot
			*q = query{m: q.m, limit: q.limit, after: q.after}
			return nil, false, nil
		}
		c.keep(snap)
	}
	return q.list(rev), true, nil
}

// candidatesLocked returns the objects that can match, if they are known without a search.
func (c *Cache) candidatesLocked(m *matcher) ([]*Object, bool) {
	if m.name != "" && (m.namespace != "" || !c.resource.Namespaced) {
		e, ok := c.tree.Get(entry{key: c.key(m.namespace, m.name)})
		if !ok {
			return nil, true
		}
		return []*Object{e.Object}, true
	}
	return c.lookup(m)
}

// query is a list being put together.
type query struct {
	m     *matcher
	limit int
	after string // the key to go on after

	objects   []*Object
	more      bool
	remaining int64
}

// add takes an object if it matches. done says that the answer is complete, as more is set.
func (q *query) add(o *Object) (done bool, err error) {
	if q.m.namespace != "" && o.Namespace != q.m.namespace {
		return false, nil
	}
	return q.addWithin(o)
}

// addWithin is add for an object that is known to be in the namespace.
func (q *query) addWithin(o *Object) (done bool, err error) {
	v := view{o: o}
	ok, err := q.m.selected(&v)
	if err != nil || !ok {
		return false, err
	}
	if len(q.objects) == q.limit {
		q.more = true
		return true, nil
	}
	q.objects = append(q.objects, o)
	return false, nil
}

// scan goes through a snapshot.
func (q *query) scan(s *snapshot) error {
	if q.m.none {
		return nil
	}
	if q.m.everything() && q.after == "" {
		q.objects = make([]*Object, 0, min(s.tree.Len(), q.limit))
	}
	var err error
	q.remaining = 0
	visit := func(e entry) bool {
		if q.more { // without selectors what remains is counted
			q.remaining++
			return true
		}
		var done bool
		if done, err = q.addWithin(e.Object); err != nil {
			return false
		}
		if done {
			q.remaining = 1
			return !q.m.selects()
		}
		return true
	}
	// The tree knows where a namespace ends: looking at each key would be most of the work of selecting by label.
	if ns := q.m.namespace; ns != "" {
		s.tree.AscendRange(entry{key: q.start()}, entry{key: ns + string('/'+1)}, visit)
	} else {
		s.tree.AscendGreaterOrEqual(entry{key: q.start()}, visit)
	}
	return err
}

// start is the first key that can be in the answer.
func (q *query) start() string {
	start := ""
	if q.m.namespace != "" {
		start = q.m.namespace + "/"
	}
	if q.after != "" {
		start = max(start, q.after+"\x00")
	}
	return start
}

func (q *query) list(rev int64) *List {
	l := &List{Objects: q.objects, Rev: rev, More: q.more}
	if q.more {
		l.Remaining = q.remaining
		if q.m.selects() {
			l.Remaining = -1
		}
	}
	return l
}

// listEtcd lists a state that is not in memory any more.
func (c *Cache) listEtcd(ctx context.Context, q *query, rev int64) (*List, error) {
	if q.m.none {
		return q.list(rev), nil
	}
	from := c.prefix + q.start()
	end := clientv3.GetPrefixRangeEnd(c.prefix)
	if q.m.namespace != "" {
		end = clientv3.GetPrefixRangeEnd(c.prefix + q.m.namespace + "/")
	}
	for {
		page := min(pageSize, q.limit-len(q.objects)+1)
		began := time.Now()
		resp, err := c.store.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithRev(rev), clientv3.WithLimit(int64(page)))
		c.store.metrics.observe("list", c.measured(), began, err)
		if err != nil {
			return nil, c.readError(rev, err)
		}
		for i, kv := range resp.Kvs {
			done, err := q.add(newObject(c, string(kv.Key[len(c.prefix):]), kv.Value, kv.ModRevision))
			if err != nil {
				return nil, err
			}
			if done {
				q.remaining = resp.Count - int64(i) // Count is of all keys from this page's first on
				return q.list(rev), nil
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return q.list(rev), nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func (c *Cache) readError(rev int64, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("listing %s at revision %d: %w", c.resource.Prefix, rev, ErrExpired)
	case errors.Is(err, rpctypes.ErrFutureRev):
		return fmt.Errorf("listing %s at revision %d: %w", c.resource.Prefix, rev, ErrFuture)
	}
	return fmt.Errorf("listing %s from etcd: %w", c.resource.Prefix, err)
}
