package scheduler

import "sync"

// mailbox collects what the scheduling goroutine is to be told. Putting never waits.
type mailbox struct {
	mu   sync.Mutex
	list []message
	// ready holds an element when the mailbox may not be empty.
	ready chan struct{}
}

// message is a change that the scheduling goroutine applies.
type message func(*Scheduler)

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

func (m *mailbox) put(msg message) {
	m.mu.Lock()
	m.list = append(m.list, msg)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// take gives everything that was put, in order. spare is a slice that take may use for what comes next.
func (m *mailbox) take(spare []message) []message {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == 0 {
		return nil
	}
	out := m.list
	clear(spare)
	m.list = spare[:0]
	return out
}
