package controller

import (
	"sync/atomic"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
)

// Queue holds keys. A key that is added while it waits is handled once; one that is added while it is handled is handled
// once more.
type Queue struct {
	workqueue.TypedRateLimitingInterface[string]
	retries atomic.Int64
	backlog *backlog
}

// newQueue makes a queue that retries after 5 ms at first and a minute at last. It measures by its backlog: the library's
// own metrics would have every queue wake up twice a second.
func newQueue(c clock.WithTicker, waited func(time.Duration)) *Queue {
	b := &backlog{clock: c, waited: waited}
	return &Queue{
		backlog: b,
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, time.Minute),
			workqueue.TypedRateLimitingQueueConfig[string]{
				Clock: c,
				DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[string]{
					Clock: c,
					Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Clock: c, Queue: b}),
				}),
			}),
	}
}

// AddRateLimited adds the key after a time that grows with each retry until Forget.
func (q *Queue) AddRateLimited(key string) {
	q.retries.Add(1)
	q.TypedRateLimitingInterface.AddRateLimited(key)
}

// backlog is the order in which keys are handled: first in, first out. The queue around it calls it under its lock, and
// once per key that really waits.
type backlog struct {
	clock  clock.PassiveClock
	waited func(time.Duration)
	adds   atomic.Int64
	items  []waiting
}

type waiting struct {
	key   string
	since time.Time
}

// Touch is called when a key is added that waits already.
func (b *backlog) Touch(string) {}

// Push adds a key at the end.
func (b *backlog) Push(key string) {
	b.adds.Add(1)
	b.items = append(b.items, waiting{key, b.clock.Now()})
}

// Len is how many keys wait.
func (b *backlog) Len() int { return len(b.items) }

// Pop takes the first key.
func (b *backlog) Pop() string {
	first := b.items[0]
	b.items[0] = waiting{}
	if b.items = b.items[1:]; len(b.items) == 0 {
		b.items = nil
	}
	b.waited(b.clock.Since(first.since))
	return first.key
}
