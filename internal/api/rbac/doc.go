// Package rbac describes the kinds of rbac.authorization.k8s.io: roles and their bindings. What flows in are
// k8s.io/api/rbac/v1 objects; what flows out are their defaults and verdicts. Whether a user may grant what a role
// grants is for authorization to say, not here.
package rbac
