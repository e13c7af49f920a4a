// Package scheduler finds a node for every pod that has none.
//
// What flows in are pods, nodes, and the objects that rules of scheduling refer to, from informers. What flows out, through
// the API, are bindings of pods to nodes, deletions of pods that make room for more important ones, the condition
// PodScheduled and the nominated node of pods that can't be scheduled yet, and events.
//
// One goroutine owns the queue and the state of all nodes: informers put what they see into a mailbox, which is emptied
// before each decision, so that nothing is locked and nothing is copied. A pod that was decided upon is assumed to be on its
// node at once and bound by others; what becomes of that comes back through the mailbox too.
package scheduler
