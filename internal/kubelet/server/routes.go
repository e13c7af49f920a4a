package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubelet/pkg/types"
)

// routes are the paths of the node's API.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{"/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"} {
		mux.HandleFunc("GET "+path, s.healthz)
	}
	mux.HandleFunc("GET /pods", s.listPods)
	mux.HandleFunc("GET /pods/{$}", s.listPods)
	mux.HandleFunc("GET /runningpods", s.listRunning)
	mux.HandleFunc("GET /runningpods/{$}", s.listRunning)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.containerLogs)
	for _, method := range []string{"GET ", "POST "} {
		for path, handler := range map[string]http.HandlerFunc{"/exec": s.exec, "/attach": s.attach} {
			mux.HandleFunc(method+path+"/{namespace}/{pod}/{container}", handler)
			mux.HandleFunc(method+path+"/{namespace}/{pod}/{uid}/{container}", handler)
		}
		mux.HandleFunc(method+"/portForward/{namespace}/{pod}", s.portForward)
		mux.HandleFunc(method+"/portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	mux.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.run)
	mux.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", s.run)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.Handle("GET /metrics", ownMetrics())
	mux.Handle("GET /metrics/resource", s.resourceMetrics())
	mux.Handle("GET /metrics/cadvisor", s.containerMetrics())
	mux.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServer(http.Dir(s.cfg.SystemLogDir))))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Ready != nil && r.URL.Path != "/healthz/ping" {
		if err := s.cfg.Ready(); err != nil {
			http.Error(w, "healthz check failed: "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	fmt.Fprint(w, "ok")
}

// listPods answers with the pods that are bound to this node.
func (s *Server) listPods(w http.ResponseWriter, _ *http.Request) {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, pod := range s.cfg.Pods() {
		list.Items = append(list.Items, *pod)
	}
	writeJSON(w, list)
}

// listRunning answers with the pods that the runtime runs, as far as the runtime knows them.
func (s *Server) listRunning(w http.ResponseWriter, r *http.Request) {
	response, err := s.cfg.Runtime.ListContainers(r.Context(), &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{
		State: &criapi.ContainerStateValue{State: criapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, runningPods(response.Containers))
}

// runningPods puts containers together to pods, in the order in which the pods appear.
func runningPods(containers []*criapi.Container) *corev1.PodList {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	index := map[string]int{}
	for _, c := range containers {
		uid := c.Labels[types.KubernetesPodUIDLabel]
		i, ok := index[uid]
		if !ok {
			i = len(list.Items)
			index[uid] = i
			list.Items = append(list.Items, corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Name:      c.Labels[types.KubernetesPodNameLabel],
				Namespace: c.Labels[types.KubernetesPodNamespaceLabel],
				UID:       apitypes.UID(uid),
			}})
		}
		list.Items[i].Spec.Containers = append(list.Items[i].Spec.Containers, corev1.Container{
			Name:  c.Labels[types.KubernetesContainerNameLabel],
			Image: c.Image.GetImage(),
		})
	}
	return list
}

// run runs a command in a container and answers with what it wrote to both streams.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	pod, ok := s.pod(w, r)
	if !ok {
		return
	}
	id, err := s.runningContainer(r.Context(), pod, r.PathValue("container"))
	if err != nil {
		writeError(w, err)
		return
	}
	response, err := s.cfg.Runtime.ExecSync(r.Context(), &criapi.ExecSyncRequest{
		ContainerId: id, Cmd: strings.Split(r.FormValue("cmd"), " ")})
	if err != nil {
		writeError(w, err)
		return
	}
	if response.ExitCode != 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
	_, _ = w.Write(append(response.Stdout, response.Stderr...))
}

func writeJSON(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}
