package kubelet

import (
	"encoding/json"
	"maps"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
)

// preStopAnnotation keeps a container's preStop hook with it, for the time when its pod is known no more.
const preStopAnnotation = "io.kubernetes.container.preStopHandler"

func fullName(pod *corev1.Pod) string { return criconfig.FullName(pod) }

func equalMaps(a, b map[string]string) bool { return maps.Equal(a, b) }

// containerByName finds a container of any type in the pod.
func containerByName(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
			return &c
		}
	}
	return nil
}

func volumeByName(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

// containerStatus finds the status of a container of any type.
func containerStatus(status *corev1.PodStatus, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{status.ContainerStatuses, status.InitContainerStatuses, status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// podIPs are the addresses of the pod, the primary one first.
func (w *worker) podIPs() []string {
	if w.pod.Spec.HostNetwork {
		return w.k.node.HostIPs
	}
	if s := w.observed.ReadySandbox(); s != nil {
		return podstatus.OrderIPs(s.IPs, w.k.node.HostIPs)
	}
	return nil
}

func (w *worker) podIP() string {
	if ips := w.podIPs(); len(ips) > 0 {
		return ips[0]
	}
	return ""
}

// targetID finds the ID of a running container by its name, for any goroutine.
func (w *worker) targetID(name string) string {
	s := containerStatus(&w.current.Load().Status, name)
	if s == nil || s.State.Running == nil {
		return ""
	}
	return s.ContainerID[len(podstatus.ContainerID("")):]
}

// recordHook writes the preStop hook on the container.
func recordHook(config *runtimeapi.ContainerConfig, c *corev1.Container) {
	if hook := preStop(c); hook != nil {
		if data, err := json.Marshal(hook); err == nil {
			config.Annotations[preStopAnnotation] = string(data)
		}
	}
}

// withRecordedHook gives a container the hook that was written on it.
func withRecordedHook(c *corev1.Container, annotations map[string]string) *corev1.Container {
	text, ok := annotations[preStopAnnotation]
	if !ok || c == nil {
		return c
	}
	hook := &corev1.LifecycleHandler{}
	if json.Unmarshal([]byte(text), hook) != nil {
		return c
	}
	c = c.DeepCopy()
	c.Lifecycle = &corev1.Lifecycle{PreStop: hook}
	return c
}

// podFromRemains makes a pod of which only containers are known, so that it can be ended like any other.
func podFromRemains(observed *cri.Pod) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace, pod.UID = observed.Name, observed.Namespace, observed.UID
	var grace int64 = 30
	for i := range observed.Containers {
		c := &observed.Containers[i]
		if containerByName(pod, c.Name) != nil {
			continue
		}
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: c.Name, Image: c.Image})
		if s, err := json.Number(c.Annotations[criconfig.TerminationGracePeriod]).Int64(); err == nil && s >= 0 {
			grace = s
		}
	}
	pod.Spec.TerminationGracePeriodSeconds = &grace
	return pod
}
