// Package kubelet is the node agent: it makes the containers of this node be what the pods that are bound to it declare,
// and reports what it observes.
//
// What flows in are pods (from the API server and from the directory of static pods), the objects they refer to, and
// the events of a container runtime that speaks CRI v1. What flows out are calls to that runtime, the status of the
// pods, the Node object with its Lease, and events. One goroutine per pod turns desired and observed state into actions
// by the pure function of package plan; everything that takes long runs beside it and reports back.
package kubelet

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cgroups"
	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/hooks"
	"github.com/proa-k8s/proa/internal/kubelet/images"
	"github.com/proa-k8s/proa/internal/kubelet/node"
	"github.com/proa-k8s/proa/internal/kubelet/objects"
	"github.com/proa-k8s/proa/internal/kubelet/probe"
	"github.com/proa-k8s/proa/internal/kubelet/volumes"
)

// Kubelet is the agent of one node.
type Kubelet struct {
	cfg     Config
	runtime *cri.Client
	ready   chan struct{}

	// Set by Run before anything else runs.
	ctx        context.Context
	wg         sync.WaitGroup // everything that Run has started
	node       *criconfig.Node
	object     *node.Node
	cgroups    *cgroups.Manager
	volumes    *volumes.Manager
	images     *images.Puller
	hooks      *hooks.Runner
	prober     *probe.Prober
	events     *eventRecorder
	services   *serviceSource
	configMaps *objects.Cache[*corev1.ConfigMap]
	secrets    *objects.Cache[*corev1.Secret]
	imageUse   imageUse

	networkReady atomic.Bool

	mu      sync.Mutex
	workers map[types.UID]*worker
	// adopted is what the runtime had when the agent started, of pods that were not met yet.
	adopted map[types.UID]*cri.Pod
	// settled says that every pod that is declared has been met, so that the rest are orphans.
	settled bool
	mirrors map[types.NamespacedName]*corev1.Pod
	statics map[types.NamespacedName]types.UID
}

// New checks the configuration and prepares the connection to the runtime; nothing else happens before Run.
func New(cfg Config) (*Kubelet, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("configuration of the kubelet: %w", err)
	}
	client, err := cri.Dial(cfg.RuntimeEndpoint, cfg.ImageEndpoint)
	if err != nil {
		return nil, err
	}
	return &Kubelet{
		cfg: cfg, runtime: client, ready: make(chan struct{}),
		workers: map[types.UID]*worker{},
		mirrors: map[types.NamespacedName]*corev1.Pod{},
		statics: map[types.NamespacedName]types.UID{},
	}, nil
}

// Run registers the node and runs its pods until ctx is done, and returns when all that it started has ended. The
// containers live on; the next Run adopts them. It can be called once.
func (k *Kubelet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	k.ctx = ctx
	defer k.runtime.Close()
	defer k.wg.Wait()
	defer cancel()
	if err := k.prepare(ctx); err != nil {
		return err
	}
	defer k.events.close()
	defer k.services.close()
	defer k.configMaps.Close()
	defer k.secrets.Close()
	defer cancel()

	k.wg.Go(func() {
		if err := k.object.Run(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.Error("the node cannot be kept current", "err", err)
		}
	})
	k.wg.Go(func() {
		select {
		case <-k.object.Ready():
			close(k.ready)
		case <-ctx.Done():
		}
	})
	if err := k.adopt(ctx); err != nil {
		return err
	}
	k.wg.Go(func() { k.watchRuntime(ctx) })
	if err := k.watchStatic(ctx); err != nil {
		return err
	}
	if err := k.watchPods(ctx); err != nil {
		return err
	}
	k.wg.Go(func() { k.housekeep(ctx) })
	<-ctx.Done()
	return nil
}

// prepare makes the parts, without starting any that write.
func (k *Kubelet) prepare(ctx context.Context) error {
	cfg := &k.cfg
	pods := filepath.Join(cfg.RootDir, "pods")
	for _, dir := range []string{pods, cfg.LogDir, filepath.Join(cfg.RootDir, "seccomp")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(pods, 0o750); err != nil {
		return err
	}
	capacity, err := node.Capacity(cfg.RootDir, cfg.MaxPods)
	if err != nil {
		return err
	}
	allocatable := node.Allocatable(capacity, cfg.SystemReserved, cfg.KubeReserved, evictionReserve(capacity, cfg.EvictionHard))
	system, err := cgroups.Detect()
	if err != nil {
		return err
	}
	k.cgroups = cgroups.New(system, cfg.CgroupRoot, cfg.PodPidsLimit, cfg.Log)
	if err := k.cgroups.Setup(node.Allocatable(capacity, cfg.SystemReserved, cfg.KubeReserved)); err != nil {
		return fmt.Errorf("making the cgroups of pods: %w", err)
	}
	var ips []string
	for _, ip := range cfg.NodeIPs {
		ips = append(ips, ip.String())
	}
	k.node = &criconfig.Node{
		Name: cfg.NodeName, HostIPs: ips, LogDir: cfg.LogDir, CgroupRoot: cfg.CgroupRoot,
		ClusterDNS: cfg.ClusterDNS, ClusterDomain: cfg.ClusterDomain, ResolvConf: cfg.ResolvConf,
		SeccompDir: filepath.Join(cfg.RootDir, "seccomp"), SandboxSeccompProfile: cfg.SandboxSeccompProfile, Capacity: capacity, Allocatable: allocatable, CgroupV2: system.V2, LimitsSwap: k.cgroups.LimitsSwap(),
	}
	k.events = newEventRecorder(ctx, cfg.Client, cfg.NodeName)
	k.events.nodeEvent(corev1.EventTypeNormal, "Starting", "Starting kubelet.")
	k.events.nodeEvent(corev1.EventTypeNormal, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")
	k.object = node.New(node.Config{
		Client: cfg.Client, Name: cfg.NodeName, Object: k.nodeObject(capacity, allocatable, ips),
		Runtime: k.runtime.Runtime, Images: k.runtime.Images, NetworkReady: k.setNetworkReady, Event: k.events.nodeEvent, Log: cfg.Log,
	})
	k.images = images.New(k.runtime.Images, k.events.container, k.imageUse.used)
	k.hooks = &hooks.Runner{Exec: k.runtime.Exec}
	k.prober = &probe.Prober{Exec: k.runtime.Exec, Event: func(t *probe.Target, reason, message string) {
		k.events.container(t.Pod, t.Container.Name, corev1.EventTypeWarning, reason, message)
	}}
	k.services = newServiceSource(ctx, cfg.Client, &k.wg)
	k.configMaps = objects.New[*corev1.ConfigMap]("configmap", objects.Reader{
		List: func(ctx context.Context, namespace string, o metav1.ListOptions) (apiruntime.Object, error) {
			return cfg.Client.CoreV1().ConfigMaps(namespace).List(ctx, o)
		},
		Watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return cfg.Client.CoreV1().ConfigMaps(namespace).Watch(ctx, o)
		},
	}, k.shownChanged)
	k.secrets = objects.New[*corev1.Secret]("secret", objects.Reader{
		List: func(ctx context.Context, namespace string, o metav1.ListOptions) (apiruntime.Object, error) {
			return cfg.Client.CoreV1().Secrets(namespace).List(ctx, o)
		},
		Watch: func(ctx context.Context, namespace string, o metav1.ListOptions) (watch.Interface, error) {
			return cfg.Client.CoreV1().Secrets(namespace).Watch(ctx, o)
		},
	}, k.shownChanged)
	k.volumes = volumes.New(volumes.Config{
		PodsDir: pods,
		ConfigMap: func(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error) {
			return k.configMaps.Get(ctx, pod.UID, pod.Namespace, name)
		},
		Secret: func(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error) {
			return k.secrets.Get(ctx, pod.UID, pod.Namespace, name)
		},
		Token: func(ctx context.Context, namespace, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			return cfg.Client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, r, metav1.CreateOptions{})
		},
		FieldValue: func(pod *corev1.Pod, path string) (string, error) {
			return k.node.FieldValue(pod, path, nil)
		},
		ResourceValue: k.node.ResourceValue,
	})
	return nil
}

// nodeObject is the Node as it is registered.
func (k *Kubelet) nodeObject(capacity, allocatable corev1.ResourceList, ips []string) *corev1.Node {
	cfg := &k.cfg
	n := &corev1.Node{}
	n.Name = cfg.NodeName
	n.Labels = map[string]string{
		corev1.LabelHostname:      cfg.NodeName,
		corev1.LabelOSStable:      runtime.GOOS,
		corev1.LabelArchStable:    runtime.GOARCH,
		"beta.kubernetes.io/os":   runtime.GOOS,
		"beta.kubernetes.io/arch": runtime.GOARCH,
	}
	maps.Copy(n.Labels, cfg.Labels)
	n.Spec.ProviderID = cfg.ProviderID
	n.Spec.Taints = cfg.Taints
	n.Status.Capacity, n.Status.Allocatable = capacity, allocatable
	for _, ip := range ips {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: cfg.NodeName})
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = cfg.Port
	n.Status.NodeInfo = node.Info(cfg.Version)
	return n
}

// adopt finds out what runs already.
func (k *Kubelet) adopt(ctx context.Context) error {
	for delay := 20 * time.Millisecond; ; delay = min(2*delay, 2*time.Second) {
		status, err := k.runtime.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
		if err == nil {
			for _, h := range status.RuntimeHandlers {
				if h.Name == "" {
					k.node.RecursiveReadOnly = h.GetFeatures().GetRecursiveReadOnlyMounts()
				}
			}
			k.adopted, err = k.runtime.List(ctx)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		k.cfg.Log.Warn("the container runtime does not answer yet", "endpoint", k.cfg.RuntimeEndpoint, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// setNetworkReady notes the runtime's word on its network; pods that wait for it go on.
func (k *Kubelet) setNetworkReady(ready bool) {
	k.networkReady.Store(ready)
	if !ready {
		return
	}
	for _, w := range k.allWorkers() {
		w.post(func() {
			if w.sandboxWait > 0 {
				delete(w.hold, "")
			}
		})
	}
}

// shownChanged tells a pod that an object which it refers to has changed.
func (k *Kubelet) shownChanged(uid types.UID) {
	if w := k.worker(uid); w != nil {
		w.post(func() { w.volumes.again = true })
	}
}

// sources gives what the environment of a pod's containers refers to.
func (k *Kubelet) sources(pod *corev1.Pod) *criconfig.Sources {
	return &criconfig.Sources{
		ConfigMap: func(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
			return k.configMaps.Get(ctx, pod.UID, namespace, name)
		},
		Secret: func(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
			return k.secrets.Get(ctx, pod.UID, namespace, name)
		},
		Services:  k.services.of,
		VolumeDir: func(name string) (string, error) { return k.volumes.Path(pod, name) },
	}
}

// pullSecrets are the secrets for pulling the images of a pod, as far as they exist.
func (k *Kubelet) pullSecrets(ctx context.Context, pod *corev1.Pod) []*corev1.Secret {
	var list []*corev1.Secret
	missing := ""
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		s, err := k.secrets.Get(ctx, pod.UID, pod.Namespace, ref.Name)
		if err != nil {
			if missing != "" {
				missing += ", "
			}
			missing += ref.Name
			continue
		}
		list = append(list, s)
	}
	if missing != "" && ctx.Err() == nil {
		k.events.pod(pod, corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
			fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", missing))
	}
	return list
}

// runtimeHandler is the handler of the pod's runtime class; empty is the default.
func (k *Kubelet) runtimeHandler(ctx context.Context, pod *corev1.Pod) (string, error) {
	name := pod.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	class, err := k.cfg.Client.NodeV1().RuntimeClasses().Get(ctx, *name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("failed to get sandbox runtime: %w", err)
	}
	return class.Handler, nil
}

// Ready is closed once the node was reported Ready for the first time.
func (k *Kubelet) Ready() <-chan struct{} { return k.ready }

// Runtime and Images are the CRI services of the node; they work until Run has returned.
func (k *Kubelet) Runtime() runtimeapi.RuntimeServiceClient { return k.runtime.Runtime }

// Images is the CRI image service of the node; it works until Run has returned.
func (k *Kubelet) Images() runtimeapi.ImageServiceClient { return k.runtime.Images }

// Pods returns the pods of this node with their current status, in no order. They are shared: do not change them.
func (k *Kubelet) Pods() []*corev1.Pod {
	var pods []*corev1.Pod
	for _, w := range k.allWorkers() {
		if w.origin != fromRemains {
			pods = append(pods, w.current.Load())
		}
	}
	return pods
}

// Pod returns the pod of that name with its current status, or nil. It is shared: do not change it.
func (k *Kubelet) Pod(namespace, name string) *corev1.Pod {
	var found *corev1.Pod
	for _, w := range k.allWorkers() {
		pod := w.current.Load()
		// Of two with the same name, one is on its way out.
		if pod.Name == name && pod.Namespace == namespace && w.origin != fromRemains && (found == nil || pod.DeletionTimestamp == nil) {
			found = pod
		}
	}
	return found
}
