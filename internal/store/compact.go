package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// housekeeping is the interval of what has to be done now and then when there is no compaction.
const housekeeping = 5 * time.Minute

// compact makes etcd forget what is older than one to two intervals, until ctx ends. Every server of a cluster does it
// for itself: compacting to a revision that is compacted already does nothing. As long as nothing is written, nothing is
// done.
func (s *Store) compact(ctx context.Context, then int64) {
	every := s.options.CompactEvery
	if every < 0 {
		every = housekeeping
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	done := int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, c := range s.registered() {
			c.forget()
		}
		if s.options.CompactEvery > 0 && then > done {
			began := time.Now()
			_, err := s.client.Compact(ctx, then)
			s.metrics.observe("compact", schema.GroupResource{}, began, err)
			if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
				if ctx.Err() == nil {
					s.log.Warn("Compacting etcd failed, and is tried again later", "revision", then, "err", err)
				}
				continue
			}
			done = then
			s.log.Debug("Compacted etcd", "revision", then)
		}
		then = s.fed.Load()
	}
}
