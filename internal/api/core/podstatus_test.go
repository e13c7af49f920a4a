package core

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestPodStatusUpdate(t *testing.T) {
	terminated := func(code int32) []corev1.ContainerStatus {
		return []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}}
	}
	running := []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	policy := func(policy corev1.RestartPolicy, code int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.RestartPolicy = policy
			p.Status.ContainerStatuses = terminated(code)
		}
	}
	run := func(p *corev1.Pod) { p.Status.ContainerStatuses = running }
	const refused = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
	tests := []struct {
		name        string
		old, change func(*corev1.Pod)
		want        []string
	}{
		{"always", policy(corev1.RestartPolicyAlways, 1), run, nil},
		{"failed and restarted", policy(corev1.RestartPolicyOnFailure, 1), run, nil},
		{"succeeded and restarted", policy(corev1.RestartPolicyOnFailure, 0), run, []string{refused}},
		{"never", policy(corev1.RestartPolicyNever, 1), run, []string{refused}},
		{"never, but the container's own policy", func(p *corev1.Pod) {
			policy(corev1.RestartPolicyNever, 0)(p)
			p.Spec.Containers[0].RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		}, run, nil},
		{"IPs", nil, func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "10.0.0.2"}} }, []string{
			`status.podIPs: Invalid value: [{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]: may specify no more than one IP for each IP family`}},
		{"dual stack", nil, func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}} }, nil},
		{"host IPs", nil, func(p *corev1.Pod) { p.Status.HostIP, p.Status.HostIPs = "10.0.0.1", []corev1.HostIP{{IP: "10.0.0.2"}} }, []string{
			"status.hostIPs[0].ip: Invalid value: \"10.0.0.2\": must be equal to `hostIP`"}},
		{"QoS class", func(p *corev1.Pod) { p.Status.QOSClass = corev1.PodQOSBestEffort }, func(p *corev1.Pod) {
			p.Status.QOSClass = corev1.PodQOSBurstable
		}, []string{`status.qosClass: Invalid value: "Burstable": field is immutable`}},
		{"claim", nil, func(p *corev1.Pod) { p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}} }, []string{
			"status.resourceClaimStatuses[0].name: Invalid value: \"x\": must match the name of an entry in `spec.resourceClaims`"}},
		{"claim twice", func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "x", ResourceClaimName: ptr.To("y")}}
		}, func(p *corev1.Pod) {
			p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}, {Name: "x"}}
		}, []string{`status.resourceClaimStatuses[1].name: Duplicate value: "x"`}},
		{"user", nil, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: -1, SupplementalGroups: []int64{1, -2}}}}}
		}, []string{
			"status.containerStatuses[0].linux.uid: Invalid value: -1: must be between 0 and 2147483647, inclusive",
			"status.containerStatuses[0].linux.supplementalGroups[1]: Invalid value: -2: must be between 0 and 2147483647, inclusive"}},
		{"health of devices", nil, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", AllocatedResourcesStatus: []corev1.ResourceStatus{
				{Name: "claim:a", Resources: []corev1.ResourceHealth{{ResourceID: "1", Health: "Fine"}, {ResourceID: "1", Health: "Healthy"}}},
				{Name: "example.org/gpu"}}}}
		}, []string{
			`status.containerStatuses[0].allocatedResourcesStatus[0].name: Invalid value: "claim:a": must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty`,
			`status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health: Unsupported value: "Fine": supported values: "Healthy", "Unhealthy", "Unknown"`,
			`status.containerStatuses[0].allocatedResourcesStatus[0].resources[1].resourceID: Duplicate value: "1"`,
			`status.containerStatuses[0].allocatedResourcesStatus[1].name: Invalid value: "example.org/gpu": must match one of the container's resource requests`}},
		{"health of an ephemeral container's devices", nil, func(p *corev1.Pod) {
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "e", AllocatedResourcesStatus: []corev1.ResourceStatus{{Name: "x"}}}}
		}, []string{"status.ephemeralContainerStatuses[0].allocatedResourcesStatus: Forbidden: must not be specified in container status"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.old == nil {
				test.old = func(*corev1.Pod) {}
			}
			old := newPod(test.old)
			pod := old.DeepCopy()
			test.change(pod)
			pod.Spec.NodeName, pod.OwnerReferences = "elsewhere", []metav1.OwnerReference{{Name: "x"}}
			preparePodStatus(context.Background(), pod, old)
			checkErrors(t, validatePodStatus(context.Background(), pod, old), test.want...)
			if pod.Spec.NodeName != "" || pod.OwnerReferences != nil {
				t.Error("an update of the status changed something else")
			}
		})
	}
}
