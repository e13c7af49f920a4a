package pods

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/clock"
)

// patience is after what time an expectation is given up: an event was lost, or a request failed in an unknown way.
const patience = 5 * time.Minute

// Expectations remembers which pods a controller has created and deleted for a key that the informer hasn't shown yet. While
// there are any, the controller must not decide on numbers: it would create or delete again.
type Expectations struct {
	clock clock.PassiveClock
	mu    sync.Mutex
	byKey map[string]*expectation
}

type expectation struct {
	creates int
	deletes sets.Set[types.UID]
	until   time.Time
}

// NewExpectations makes an empty set.
func NewExpectations(c clock.PassiveClock) *Expectations {
	return &Expectations{clock: c, byKey: make(map[string]*expectation)}
}

// Expect notes, before the requests are sent, that pods are about to be created and deleted for key. It replaces
// what was expected.
func (e *Expectations) Expect(key string, creates int, deletes ...types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byKey[key] = &expectation{creates: creates, deletes: sets.New(deletes...), until: e.clock.Now().Add(patience)}
}

// Created notes that n created pods were seen, or will never be because the request failed.
func (e *Expectations) Created(key string, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.byKey[key]; x != nil {
		x.creates -= n
	}
}

// Deleted notes that the deletion of the pod was seen, or that the request failed.
func (e *Expectations) Deleted(key string, uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.byKey[key]; x != nil {
		x.deletes.Delete(uid)
	}
}

// Satisfied tells whether everything that was expected has been seen, or is given up.
func (e *Expectations) Satisfied(key string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.byKey[key]
	return x == nil || x.creates <= 0 && len(x.deletes) == 0 || e.clock.Now().After(x.until)
}

// Forget drops what is expected for key.
func (e *Expectations) Forget(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byKey, key)
}
