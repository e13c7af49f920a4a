// Package catalogue puts the kinds of all API groups together. Nothing flows in; what flows out is the list of resources
// that an API server of Proa serves beside custom resources.
package catalogue

import (
	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/apps"
	"github.com/proa-k8s/proa/internal/api/core"
)

// Builtin returns all resources that are compiled in, in the order of discovery. Each call makes new descriptions.
func Builtin() []*api.Resource {
	return []*api.Resource{
		core.ConfigMap(),
		core.Endpoints(),
		core.Event(),
		core.Namespace(),
		core.Node(),
		core.Pod(),
		core.PodTemplate(),
		core.Secret(),
		core.Service(),
		core.ServiceAccount(),

		apps.Deployment(),
		apps.ReplicaSet(),
	}
}
