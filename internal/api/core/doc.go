// Package core describes the kinds of the core group ("v1"): pods and what they are made of, nodes, services,
// configuration. What flows in are k8s.io/api/core/v1 objects; what flows out are their defaults, verdicts and cells.
package core
