package kubelet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// eventRecorder tells users what happens to pods and to the node. It never waits.
type eventRecorder struct {
	node        string
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

func newEventRecorder(ctx context.Context, client kubernetes.Interface, node string) *eventRecorder {
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &eventRecorder{
		node:        node,
		broadcaster: b,
		recorder:    b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: node}),
	}
}

func (e *eventRecorder) close() { e.broadcaster.Shutdown() }

func reference(pod *corev1.Pod) *corev1.ObjectReference {
	uid := pod.UID
	if mirrored := pod.Annotations[configHashAnnotation]; mirrored != "" {
		uid = types.UID(mirrored)
	}
	return &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: uid, ResourceVersion: pod.ResourceVersion,
	}
}

// pod tells of something that happened to a pod.
func (e *eventRecorder) pod(pod *corev1.Pod, kind, reason, message string) {
	e.recorder.Event(reference(pod), kind, reason, message)
}

// container tells of something that happened to a container of a pod.
func (e *eventRecorder) container(pod *corev1.Pod, name, kind, reason, message string) {
	ref := reference(pod)
	ref.FieldPath = fmt.Sprintf("spec.%s{%s}", containerList(pod, name), name)
	e.recorder.Event(ref, kind, reason, message)
}

// containerList is the field of the spec that the container is declared in.
func containerList(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return "initContainers"
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return "ephemeralContainers"
		}
	}
	return "containers"
}

// nodeEvent tells of something that happened to the node.
func (e *eventRecorder) nodeEvent(kind, reason, message string) {
	e.recorder.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: e.node, UID: types.UID(e.node)}, kind, reason, message)
}
