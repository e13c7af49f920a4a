// Package framework holds what the parts of the scheduler share: the state of nodes and of the pods on them, the frame of
// plugins, and the decision that runs the plugins over the state.
//
// What flows in are nodes and pods as they are observed, and pods that are assumed to be on a node because they are being
// bound to it. What flows out are decisions: the node for a pod, or the reasons why there is none. A decision reads the
// state and the pod, and nothing else; it changes nothing.
//
// Nothing here is locked: state and decisions belong to the goroutine that schedules. That is why a decision needs no copy
// of the state.
package framework
