// Package criconfig translates what a pod declares into what a runtime is told by CRI: the configuration of its sandbox
// and of its containers.
//
// What flows in are the pod, facts about the node, and the objects that the pod's environment refers to; what flows out
// are CRI messages. Nothing is kept, and nothing is touched but for reading the node's resolv.conf and env files.
package criconfig

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubectl/pkg/util/qos"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/proa-k8s/proa/internal/kubelet/plan"
)

// The annotations that are recorded on containers, so that a restarted agent finds what it needs.
const (
	RestartCountAnnotation        = "io.kubernetes.container.restartCount"
	TerminationMessagePath        = "io.kubernetes.container.terminationMessagePath"
	TerminationMessagePolicy      = "io.kubernetes.container.terminationMessagePolicy"
	TerminationGracePeriod        = "io.kubernetes.pod.terminationGracePeriod"
	DefaultTerminationMessagePath = "/dev/termination-log"
)

// Node is what translation needs to know of the node.
type Node struct {
	Name          string
	HostIPs       []string
	LogDir        string
	CgroupRoot    string
	ClusterDNS    []string
	ClusterDomain string
	ResolvConf    string
	SeccompDir    string
	// SandboxSeccompProfile is the path of the profile for sandboxes; empty means the runtime's default.
	SandboxSeccompProfile string
	Capacity              corev1.ResourceList
	Allocatable           corev1.ResourceList
	CgroupV2              bool
	LimitsSwap            bool // with cgroup v2: containers may be kept from swapping
	// RecursiveReadOnly says that the runtime makes mounts recursively read-only.
	RecursiveReadOnly bool
}

// Sources gives the objects that a pod may refer to; each returns an API error when there is none.
type Sources struct {
	ConfigMap func(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret    func(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Services of the pod's namespace and the service default/kubernetes.
	Services func(namespace string) []*corev1.Service
	// VolumeDir is where a volume of the pod is on the node.
	VolumeDir func(volume string) (string, error)
}

// ConfigError is a mistake in what the pod declares or refers to: its container waits as CreateContainerConfigError.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

func configErrorf(format string, args ...any) error {
	return &ConfigError{fmt.Errorf(format, args...)}
}

// FullName is how messages name a pod: name_namespace(uid).
func FullName(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}

// LogDirectory is the directory of the logs of a pod.
func LogDirectory(root, namespace, name string, uid types.UID) string {
	return filepath.Join(root, namespace+"_"+name+"_"+string(uid))
}

// LogPath is the log file of a container below its pod's log directory.
func LogPath(container string, attempt uint32) string {
	return filepath.Join(container, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// QOS is the quality of service class of the pod.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	return qos.ComputePodQOS(pod)
}

// CgroupParent is the cgroup of the pod.
func CgroupParent(root string, pod *corev1.Pod) string {
	class := ""
	if q := QOS(pod); q != corev1.PodQOSGuaranteed {
		class = strings.ToLower(string(q))
	}
	return filepath.Join(root, "kubepods", class, "pod"+string(pod.UID))
}

func podLabels(pod *corev1.Pod) map[string]string {
	return map[string]string{
		kubelettypes.KubernetesPodNameLabel:      pod.Name,
		kubelettypes.KubernetesPodNamespaceLabel: pod.Namespace,
		kubelettypes.KubernetesPodUIDLabel:       string(pod.UID),
	}
}

// Mounted is what a container gets mounted, apart from what every container gets.
type Mounted struct {
	Mounts []*runtimeapi.Mount
	// HostsFile is the node's path of the /etc/hosts to mount, TerminationLog that of the termination message; empty
	// when there is none.
	HostsFile      string
	TerminationLog string
}

// ImageUser is who an image's process runs as by the image's own word.
type ImageUser struct {
	UID      *int64
	Username string
}

// Container gives the configuration of a container. The image is the reference that the pull ended with.
func (n *Node) Container(ctx context.Context, pod *corev1.Pod, c *corev1.Container, attempt uint32, image *runtimeapi.ImageSpec,
	user ImageUser, env []*runtimeapi.KeyValue, mounted Mounted,
) (*runtimeapi.ContainerConfig, error) {
	security, err := n.containerSecurity(pod, c, user)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(env))
	for _, kv := range env {
		values[kv.Key] = string(kv.Value)
	}
	config := &runtimeapi.ContainerConfig{
		Metadata:   &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: attempt},
		Image:      image,
		Command:    expandAll(c.Command, values),
		Args:       expandAll(c.Args, values),
		WorkingDir: c.WorkingDir,
		Envs:       env,
		Labels:     podLabels(pod),
		Annotations: map[string]string{
			plan.HashAnnotation:      plan.Hash(c),
			RestartCountAnnotation:   strconv.FormatUint(uint64(attempt), 10),
			TerminationMessagePath:   c.TerminationMessagePath,
			TerminationMessagePolicy: string(c.TerminationMessagePolicy),
		},
		LogPath:   LogPath(c.Name, attempt),
		Stdin:     c.Stdin,
		StdinOnce: c.StdinOnce,
		Tty:       c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       n.Resources(pod, c),
			SecurityContext: security,
		},
	}
	config.Labels[kubelettypes.KubernetesContainerNameLabel] = c.Name
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		config.Annotations[TerminationGracePeriod] = strconv.FormatInt(*s, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		config.StopSignal = StopSignal(*c.Lifecycle.StopSignal)
	}
	config.Mounts = append(config.Mounts, mounted.Mounts...)
	if mounted.HostsFile != "" && !mountsAt(mounted.Mounts, "/etc/hosts") {
		config.Mounts = append(config.Mounts, &runtimeapi.Mount{
			ContainerPath: "/etc/hosts", HostPath: mounted.HostsFile,
			Readonly: c.SecurityContext != nil && c.SecurityContext.ReadOnlyRootFilesystem != nil && *c.SecurityContext.ReadOnlyRootFilesystem,
		})
	}
	if mounted.TerminationLog != "" && c.TerminationMessagePath != "" {
		config.Mounts = append(config.Mounts, &runtimeapi.Mount{
			ContainerPath: c.TerminationMessagePath, HostPath: mounted.TerminationLog,
		})
	}
	return config, nil
}

// Names of real-time signals have a sign that those of CRI spell out: SIGRTMIN+1 is SIGNAL_SIGRTMINPLUS1.
var (
	spelled = strings.NewReplacer("+", "PLUS", "-", "MINUS")
	signed  = strings.NewReplacer("PLUS", "+", "MINUS", "-")
)

// StopSignal translates the name of a signal; one that CRI does not know is left to the runtime.
func StopSignal(s corev1.Signal) runtimeapi.Signal {
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+spelled.Replace(string(s))])
}

// SignalName is the inverse of StopSignal; empty for what the runtime decides.
func SignalName(s runtimeapi.Signal) corev1.Signal {
	if s == runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		return ""
	}
	return corev1.Signal(signed.Replace(strings.TrimPrefix(s.String(), "SIGNAL_")))
}

func mountsAt(mounts []*runtimeapi.Mount, path string) bool {
	for _, m := range mounts {
		if filepath.Clean(m.ContainerPath) == path {
			return true
		}
	}
	return false
}
