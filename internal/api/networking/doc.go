// Package networking describes the kinds of networking.k8s.io. What flows in are k8s.io/api/networking/v1 objects; what
// flows out are defaults, verdicts and cells.
package networking
