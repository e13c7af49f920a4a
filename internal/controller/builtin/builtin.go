// Package builtin lists the controllers of a cluster.
package builtin

import (
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/clusterrole"
	"github.com/proa-k8s/proa/internal/controller/deployment"
	"github.com/proa-k8s/proa/internal/controller/disruption"
	"github.com/proa-k8s/proa/internal/controller/endpoints"
	"github.com/proa-k8s/proa/internal/controller/endpointslice"
	"github.com/proa-k8s/proa/internal/controller/endpointslicemirroring"
	"github.com/proa-k8s/proa/internal/controller/garbagecollector"
	"github.com/proa-k8s/proa/internal/controller/namespace"
	"github.com/proa-k8s/proa/internal/controller/nodeipam"
	"github.com/proa-k8s/proa/internal/controller/nodelifecycle"
	"github.com/proa-k8s/proa/internal/controller/podgc"
	"github.com/proa-k8s/proa/internal/controller/replicaset"
	"github.com/proa-k8s/proa/internal/controller/serviceaccount"
	"github.com/proa-k8s/proa/internal/controller/tainteviction"
	"github.com/proa-k8s/proa/internal/network/loadbalancer"
)

// Options are what controllers must know of the cluster. The zero value is enough for controller.Roles, not for a manager.
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

// Controllers gives all controllers. Neither the list nor the roles that follow from it depend on the options.
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
		disruption.New(),
		endpoints.New(),
		endpointslice.New(),
		endpointslicemirroring.New(),
		garbagecollector.New(),
		loadbalancer.New(),
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
