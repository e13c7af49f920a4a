package cgroups

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	ocicgroups "github.com/opencontainers/cgroups"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
)

func convertShares(shares uint64) uint64 { return ocicgroups.ConvertCPUSharesToCgroupV2Value(shares) }

// Manager keeps the cgroups of the pods of one node.
type Manager struct {
	system    *System
	root      string
	pidsLimit int64
	log       *slog.Logger

	mu       sync.Mutex
	requests map[types.UID]int64 // CPU requests of burstable pods, in thousandths of a core
	shares   int64
}

// New makes a Manager for the cgroups below root. pidsLimit bounds the processes of each pod, if above 0.
func New(system *System, root string, pidsLimit int64, log *slog.Logger) *Manager {
	return &Manager{system: system, root: root, pidsLimit: pidsLimit, log: log, requests: map[types.UID]int64{}}
}

// Setup makes the cgroups that hold those of the pods, bounded by what is allocatable.
func (m *Manager) Setup(allocatable corev1.ResourceList) error {
	limits := Limits{Shares: criconfig.Shares(allocatable.Cpu().MilliValue()), Memory: allocatable.Memory().Value()}
	if pids, ok := allocatable["pid"]; ok {
		limits.Pids = pids.Value()
	}
	base := filepath.Join(m.root, "kubepods")
	if m.system.V2 {
		if err := m.system.delegateTo(base, m.log); err != nil {
			return err
		}
	}
	return errors.Join(
		m.system.write(base, limits),
		m.system.write(filepath.Join(base, "besteffort"), Limits{Shares: criconfig.MinShares}),
		m.system.write(filepath.Join(base, "burstable"), Limits{Shares: criconfig.MinShares}),
	)
}

// LimitsSwap says whether what containers swap can be bounded, with version 2. The files are there only below the root.
func (m *Manager) LimitsSwap() bool {
	mount, ok := m.system.Mounts["memory"]
	if !ok || !m.system.V2 {
		return false
	}
	_, err := os.Stat(filepath.Join(mount, m.root, "kubepods", "memory.swap.max"))
	return err == nil
}

// PodLimits are the bounds of the cgroup of a pod: what it is given as a whole, or the sum of what its containers are
// given where all are bounded.
func PodLimits(pod *corev1.Pod, pidsLimit int64) Limits {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	l := Limits{
		Shares: criconfig.Shares(requests.Cpu().MilliValue()),
		Quota:  -1, Period: criconfig.Period, Memory: -1,
		Pids:      pidsLimit,
		Hugepages: map[string]int64{},
	}
	if bounded(pod, corev1.ResourceCPU) {
		l.Quota = criconfig.Quota(limits.Cpu().MilliValue())
	}
	if bounded(pod, corev1.ResourceMemory) {
		l.Memory = limits.Memory().Value()
	}
	for _, h := range (&criconfig.Node{}).Resources(pod, &corev1.Container{Resources: corev1.ResourceRequirements{Limits: limits}}).HugepageLimits {
		l.Hugepages[h.PageSize] = int64(h.Limit)
	}
	return l
}

// bounded reports whether the pod as a whole cannot use more than its limits.
func bounded(pod *corev1.Pod, name corev1.ResourceName) bool {
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[name]; ok && !q.IsZero() {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		if q, ok := pod.Spec.Containers[i].Resources.Limits[name]; !ok || q.IsZero() {
			return false
		}
	}
	for i := range pod.Spec.InitContainers {
		if q, ok := pod.Spec.InitContainers[i].Resources.Limits[name]; !ok || q.IsZero() {
			return false
		}
	}
	return true
}

// SetupPod makes the cgroup of a pod or brings its limits up to date.
func (m *Manager) SetupPod(pod *corev1.Pod) error {
	return m.UpdatePod(pod, m.Limits(pod))
}

// Limits are the bounds of the cgroup of a pod.
func (m *Manager) Limits(pod *corev1.Pod) Limits { return PodLimits(pod, m.pidsLimit) }

// UpdatePod sets bounds of the cgroup of a pod, and the share that its class has for it. The bounds that are zero stay.
func (m *Manager) UpdatePod(pod *corev1.Pod, limits Limits) error {
	err := m.system.write(criconfig.CgroupParent(m.root, pod), limits)
	if criconfig.QOS(pod) == corev1.PodQOSBurstable {
		requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
		err = errors.Join(err, m.setBurstable(pod.UID, requests.Cpu().MilliValue(), true))
	}
	return err
}

// RemovePod removes the cgroup of a pod, which has no containers any more.
func (m *Manager) RemovePod(pod *corev1.Pod) error {
	return m.RemoveUID(pod.UID)
}

// RemoveUID removes the cgroup of a pod of which nothing but the UID is known.
func (m *Manager) RemoveUID(uid types.UID) error {
	var errs []error
	for _, class := range []string{"", "burstable", "besteffort"} {
		errs = append(errs, m.system.remove(filepath.Join(m.root, "kubepods", class, "pod"+string(uid)), m.log))
	}
	return errors.Join(append(errs, m.setBurstable(uid, 0, false))...)
}

// setBurstable gives the burstable pods together the weight that they ask for.
func (m *Manager) setBurstable(uid types.UID, milli int64, present bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, had := m.requests[uid]; !had && !present {
		return nil
	}
	if present {
		m.requests[uid] = milli
	} else {
		delete(m.requests, uid)
	}
	var sum int64
	for _, r := range m.requests {
		sum += r
	}
	shares := criconfig.Shares(sum)
	if shares == m.shares {
		return nil
	}
	m.shares = shares
	return m.system.write(filepath.Join(m.root, "kubepods", "burstable"), Limits{Shares: shares})
}

// Pods are the UIDs of the pods that have a cgroup.
func (m *Manager) Pods() []types.UID {
	seen := map[types.UID]bool{}
	var uids []types.UID
	for _, mount := range m.system.all {
		for _, class := range []string{"", "burstable", "besteffort"} {
			entries, err := os.ReadDir(filepath.Join(mount, m.root, "kubepods", class))
			if err != nil {
				continue
			}
			for _, e := range entries {
				uid, ok := strings.CutPrefix(e.Name(), "pod")
				if ok && e.IsDir() && !seen[types.UID(uid)] {
					seen[types.UID(uid)] = true
					uids = append(uids, types.UID(uid))
				}
			}
		}
	}
	return uids
}

// Remove removes everything below the root, when no pod is left.
func (m *Manager) Remove() error {
	return m.system.remove(filepath.Join(m.root, "kubepods"), m.log)
}
