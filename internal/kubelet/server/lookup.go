package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubelet/pkg/types"
)

// httpError is an error with the status that it is answered with.
type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return e.text }

// writeError answers with err: its own status if it has one, what CRI means by its code otherwise.
func writeError(w http.ResponseWriter, err error) {
	var known *httpError
	code := http.StatusInternalServerError
	text := err.Error()
	switch {
	case errors.As(err, &known):
		code = known.code
	case status.Code(err) == codes.NotFound:
		code, text = http.StatusNotFound, status.Convert(err).Message()
	case status.Code(err) == codes.InvalidArgument:
		code, text = http.StatusBadRequest, status.Convert(err).Message()
	}
	http.Error(w, text, code)
}

// pod returns the pod that the path of the request names, or answers that there is none.
func (s *Server) pod(w http.ResponseWriter, r *http.Request) (*corev1.Pod, bool) {
	pod := s.cfg.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if uid := r.PathValue("uid"); pod != nil && uid != "" && uid != string(pod.UID) {
		pod = nil
	}
	if pod == nil {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return nil, false
	}
	return pod, true
}

// attempts returns what the runtime has of a container of the pod, the newest first.
func (s *Server) attempts(ctx context.Context, pod *corev1.Pod, container string) ([]*criapi.Container, error) {
	response, err := s.cfg.Runtime.ListContainers(ctx, &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{
		LabelSelector: map[string]string{
			types.KubernetesPodUIDLabel:        string(pod.UID),
			types.KubernetesContainerNameLabel: container,
		},
	}})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(response.Containers, func(a, b *criapi.Container) int {
		return int(min(max(b.CreatedAt-a.CreatedAt, -1), 1))
	})
	return response.Containers, nil
}

// runningContainer returns the ID of the running container with that name.
func (s *Server) runningContainer(ctx context.Context, pod *corev1.Pod, container string) (string, error) {
	attempts, err := s.attempts(ctx, pod, container)
	if err != nil {
		return "", err
	}
	for _, c := range attempts {
		if c.State == criapi.ContainerState_CONTAINER_RUNNING {
			return c.Id, nil
		}
	}
	return "", &httpError{http.StatusNotFound, fmt.Sprintf("container not found (%q)", container)}
}

// sandbox returns the ID of the ready sandbox of the pod.
func (s *Server) sandbox(ctx context.Context, pod *corev1.Pod) (string, error) {
	response, err := s.cfg.Runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{Filter: &criapi.PodSandboxFilter{
		LabelSelector: map[string]string{types.KubernetesPodUIDLabel: string(pod.UID)},
		State:         &criapi.PodSandboxStateValue{State: criapi.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return "", err
	}
	if len(response.Items) == 0 {
		return "", &httpError{http.StatusNotFound, fmt.Sprintf("sandbox for pod %q not found", pod.Namespace+"/"+pod.Name)}
	}
	return response.Items[0].Id, nil
}

// hasContainer says whether the pod declares a container with that name, of whatever kind.
func hasContainer(pod *corev1.Pod, name string) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return true
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}

// containerStatus returns the pod's status of that container, or nil.
func containerStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }
