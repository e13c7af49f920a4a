package criconfig

import (
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CPU is shared by weight (shares) and bounded by quota in a period, in microseconds.
const (
	MinShares = 2
	MaxShares = 262144
	Period    = 100000
	minQuota  = 1000
)

// Shares is the weight of a CPU request in thousandths of a core.
func Shares(milli int64) int64 {
	return min(max(milli*1024/1000, MinShares), MaxShares)
}

// Quota is the bound of a CPU limit in thousandths of a core, in microseconds per Period; 0 means none.
func Quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*Period/1000, minQuota)
}

// Resources are the bounds of a container.
func (n *Node) Resources(pod *corev1.Pod, c *corev1.Container) *runtimeapi.LinuxContainerResources {
	limits, requests := c.Resources.Limits, c.Resources.Requests
	request, limit := requests[corev1.ResourceCPU], limits[corev1.ResourceCPU]
	if _, ok := requests[corev1.ResourceCPU]; !ok {
		request = limit
	}
	r := &runtimeapi.LinuxContainerResources{
		CpuShares:          Shares(request.MilliValue()),
		CpuPeriod:          Period,
		CpuQuota:           Quota(limit.MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(),
		OomScoreAdj:        n.OOMScoreAdj(pod, c),
		HugepageLimits:     hugepages(limits),
	}
	if n.CgroupV2 {
		// All processes of a container die together, so that it is never left half alive.
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	if n.CgroupV2 && n.LimitsSwap {
		r.Unified["memory.swap.max"] = "0"
	}
	return r
}

// hugepages bounds every page size that the machine has; what is not declared may not be used.
func hugepages(limits corev1.ResourceList) []*runtimeapi.HugepageLimit {
	var list []*runtimeapi.HugepageLimit
	for _, size := range HugepageSizes() {
		q := limits[corev1.ResourceName(corev1.ResourceHugePagesPrefix+hugepageQuantity(size).String())]
		list = append(list, &runtimeapi.HugepageLimit{PageSize: HugepageName(size), Limit: uint64(q.Value())})
	}
	return list
}

// HugepageSizes are the sizes in bytes of huge pages that the machine has.
func HugepageSizes() []uint64 {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var sizes []uint64
	for _, e := range entries {
		var kb uint64
		if _, err := fmt.Sscanf(e.Name(), "hugepages-%dkB", &kb); err == nil {
			sizes = append(sizes, kb<<10)
		}
	}
	return sizes
}

func hugepageQuantity(size uint64) *resource.Quantity {
	return resource.NewQuantity(int64(size), resource.BinarySI)
}

// HugepageName is the kernel's name of a size of huge pages: 2MB, 1GB.
func HugepageName(size uint64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	i := 0
	for size >= 1024 && i < len(units)-1 {
		size /= 1024
		i++
	}
	return fmt.Sprintf("%d%s", size, units[i])
}

// The scores that tell the kernel whom to kill when memory is short.
const (
	guaranteedScore = -997
	bestEffortScore = 1000
	systemCritical  = 2 * 1000000000
)

// OOMScoreAdj grows with what a container may lose: those that asked for more memory are killed later.
func (n *Node) OOMScoreAdj(pod *corev1.Pod, c *corev1.Container) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical {
		return guaranteedScore
	}
	switch QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteedScore
	case corev1.PodQOSBestEffort:
		return bestEffortScore
	}
	capacity := n.Capacity.Memory().Value()
	if capacity == 0 {
		return bestEffortScore - 1
	}
	request := c.Resources.Requests.Memory().Value()
	if request == 0 && pod.Spec.Resources != nil {
		// What the pod asked for as a whole and no container for itself is shared evenly.
		whole := pod.Spec.Resources.Requests.Memory().Value()
		named := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
		if left := whole - named.Memory().Value(); left > 0 {
			request = left / int64(len(pod.Spec.Containers))
		}
	}
	score := 1000 - 1000*request/capacity
	return min(max(score, 1000+guaranteedScore), bestEffortScore-1)
}

// SysctlAllowed reports whether a pod may set a sysctl: the safe ones, and what the patterns allow.
func SysctlAllowed(name string, patterns []string) bool {
	name = strings.ReplaceAll(name, "/", ".")
	switch name {
	case "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
		"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
		"net.ipv4.tcp_wmem":
		return true
	}
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(name, prefix) || p == name {
			return true
		}
	}
	return false
}
