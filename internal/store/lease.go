package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// Objects that are written within leaseShare of each other (or a twentieth of their time to live, if that is less)
	// share a lease, and so live that much longer at most; but not more than leaseMax of them, since they are deleted in one
	// step.
	leaseShare = time.Minute
	leaseMax   = 1000
)

// leases gives out etcd leases for objects with a time to live.
type leases struct {
	client *clientv3.Client

	mu      sync.Mutex
	current map[int64]*lease // by time to live
}

type lease struct {
	id    clientv3.LeaseID
	until time.Time // may be given out until then
	used  int
}

// get returns a lease that lives at least ttl seconds.
func (l *leases) get(ctx context.Context, ttl int64) (clientv3.LeaseID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if cur := l.current[ttl]; cur != nil && now.Before(cur.until) && cur.used < leaseMax {
		cur.used++
		return cur.id, nil
	}
	share := min(leaseShare, time.Duration(ttl)*time.Second/20)
	// etcd counts whole seconds, and from a moment later than we do.
	resp, err := l.client.Grant(ctx, ttl+int64((share+time.Second-1)/time.Second))
	if err != nil {
		return 0, fmt.Errorf("getting a lease of %d seconds: %w", ttl, err)
	}
	if l.current == nil {
		l.current = map[int64]*lease{}
	}
	l.current[ttl] = &lease{id: resp.ID, until: now.Add(share), used: 1}
	return resp.ID, nil
}

// forget stops a lease from being given out again: etcd does not know it any more.
func (l *leases) forget(ttl int64, id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cur := l.current[ttl]; cur != nil && cur.id == id {
		delete(l.current, ttl)
	}
}
