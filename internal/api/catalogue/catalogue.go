// Package catalogue puts the kinds of all API groups together. Nothing flows in; what flows out is the list of resources
// that an API server of Proa serves beside custom resources.
package catalogue

import (
	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/apps"
	"github.com/proa-k8s/proa/internal/api/authentication"
	"github.com/proa-k8s/proa/internal/api/authorization"
	"github.com/proa-k8s/proa/internal/api/batch"
	"github.com/proa-k8s/proa/internal/api/coordination"
	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/api/discovery"
	"github.com/proa-k8s/proa/internal/api/networking"
	"github.com/proa-k8s/proa/internal/api/node"
	"github.com/proa-k8s/proa/internal/api/policy"
	"github.com/proa-k8s/proa/internal/api/rbac"
	"github.com/proa-k8s/proa/internal/api/scheduling"
	"github.com/proa-k8s/proa/internal/api/storage"
)

// Builtin returns all resources that are compiled in, in the order of discovery. Each call makes new descriptions.
func Builtin() []*api.Resource {
	return []*api.Resource{
		core.Binding(),
		core.ConfigMap(),
		core.Endpoints(),
		core.Event(),
		core.LimitRange(),
		core.Namespace(),
		core.Node(),
		core.PersistentVolume(),
		core.PersistentVolumeClaim(),
		core.Pod(),
		core.PodTemplate(),
		core.ReplicationController(),
		core.ResourceQuota(),
		core.Secret(),
		core.Service(),
		core.ServiceAccount(),

		apps.ControllerRevision(),
		apps.DaemonSet(),
		apps.Deployment(),
		apps.ReplicaSet(),
		apps.StatefulSet(),

		authentication.SelfSubjectReview(),
		authentication.TokenReview(),

		authorization.LocalSubjectAccessReview(),
		authorization.SelfSubjectAccessReview(),
		authorization.SelfSubjectRulesReview(),
		authorization.SubjectAccessReview(),

		batch.CronJob(),
		batch.Job(),

		coordination.Lease(),

		discovery.EndpointSlice(),

		networking.Ingress(),
		networking.IngressClass(),
		networking.IPAddress(),
		networking.NetworkPolicy(),
		networking.ServiceCIDR(),

		node.RuntimeClass(),

		policy.PodDisruptionBudget(),

		rbac.ClusterRole(),
		rbac.ClusterRoleBinding(),
		rbac.Role(),
		rbac.RoleBinding(),

		scheduling.PriorityClass(),

		storage.CSIDriver(),
		storage.CSINode(),
		storage.CSIStorageCapacity(),
		storage.StorageClass(),
		storage.VolumeAttachment(),
	}
}
