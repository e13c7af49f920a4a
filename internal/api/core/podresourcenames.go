package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// quotaResources are the resources without a domain that a ResourceQuota can limit.
var quotaResources = sets.New(
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage,
	corev1.ResourceRequestsEphemeralStorage,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
	corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
	corev1.ResourceSecrets, corev1.ResourcePersistentVolumeClaims, corev1.ResourceConfigMaps,
	corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
)

// countedResources are those that come in whole units.
var countedResources = sets.New(
	corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
	corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
	corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
)

func isStandardQuotaResource(name corev1.ResourceName) bool {
	return quotaResources.Has(name) || isHugePagesRequest(name)
}

func isCountedResource(name corev1.ResourceName) bool { return countedResources.Has(name) }

// isHugePagesRequest says that a quota limits requests of huge pages of one size: requests.hugepages-2Mi.
func isHugePagesRequest(name corev1.ResourceName) bool {
	rest, ok := cutRequests(name)
	return ok && isHugePages(rest)
}

func cutRequests(name corev1.ResourceName) (corev1.ResourceName, bool) {
	rest, ok := strings.CutPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
	return corev1.ResourceName(rest), ok
}
