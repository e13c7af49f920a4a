// Package builtin lists the controllers of a cluster.
package builtin

import (
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/clusterrole"
	"github.com/proa-k8s/proa/internal/controller/deployment"
	"github.com/proa-k8s/proa/internal/controller/endpoints"
	"github.com/proa-k8s/proa/internal/controller/endpointslice"
	"github.com/proa-k8s/proa/internal/controller/garbagecollector"
	"github.com/proa-k8s/proa/internal/controller/namespace"
	"github.com/proa-k8s/proa/internal/controller/nodeipam"
	"github.com/proa-k8s/proa/internal/controller/nodelifecycle"
	"github.com/proa-k8s/proa/internal/controller/podgc"
	"github.com/proa-k8s/proa/internal/controller/replicaset"
	"github.com/proa-k8s/proa/internal/controller/serviceaccount"
	"github.com/proa-k8s/proa/internal/controller/tainteviction"
)

// Options are what controllers must know of the cluster. With the zero value, all that only declare can be listed, which is
// enough for controller.Roles.
type Options struct {
	// RootCA is the authority of the API server's certificate, in PEM.
	RootCA []byte
	// IssueToken makes tokens for secrets of the type kubernetes.io/service-account-token.
	IssueToken serviceaccount.IssueToken
	// NodeIPAM says how pod ranges are shared out.
	NodeIPAM nodeipam.Config
	// NodeLifecycle holds the patience with silent nodes.
	NodeLifecycle nodelifecycle.Config
	// TerminatedPods is how many pods that have ended are kept; 12500 when zero, all when negative.
	TerminatedPods int
}

// Controllers gives all controllers. Those that a cluster can do without are left out when their options are missing in
// Setup only, never in the list, so that the roles don't depend on options.
func Controllers(o Options) []controller.Controller {
	switch {
	case o.TerminatedPods == 0:
		o.TerminatedPods = 12500
	case o.TerminatedPods < 0:
		o.TerminatedPods = 0
	}
	return []controller.Controller{
		clusterrole.New(),
		deployment.New(),
		endpoints.New(),
		endpointslice.New(),
		garbagecollector.New(),
		namespace.New(),
		nodeipam.New(o.NodeIPAM),
		nodelifecycle.New(o.NodeLifecycle),
		podgc.New(o.TerminatedPods),
		replicaset.New(),
		replicaset.NewReplication(),
		serviceaccount.NewAccounts(),
		serviceaccount.NewRootCA(o.RootCA),
		serviceaccount.NewTokens(o.RootCA, o.IssueToken),
		tainteviction.New(),
	}
}
