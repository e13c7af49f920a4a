// Package apps describes the kinds of the group apps: the workloads made of pod templates. What flows in are
// k8s.io/api/apps objects of any version; what flows out are their hub forms (apps/v1), defaults, verdicts and cells.
package apps
