package kubelet

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/api/core"
)

// The annotations that mark static pods and their mirrors.
const (
	configSourceAnnotation = "kubernetes.io/config.source"
	configHashAnnotation   = "kubernetes.io/config.hash"
	configSeenAnnotation   = "kubernetes.io/config.seen"
	mirrorAnnotation       = corev1.MirrorPodAnnotationKey
	configSourceFile       = "file"
)

// watchStatic runs the pods of the manifest directory and follows its changes.
func (k *Kubelet) watchStatic(ctx context.Context) error {
	dir := k.cfg.StaticPodDir
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the manifests of static pods: %w", err)
	}
	if err := watcher.Add(dir); err != nil {
		return errors.Join(fmt.Errorf("watching the manifests of static pods: %w", err), watcher.Close())
	}
	k.readStatic()
	k.wg.Go(func() {
		defer watcher.Close()
		// An editor writes a file in several steps; it is read when it has come to rest.
		const rest = 50 * time.Millisecond
		timer := time.NewTimer(rest)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-watcher.Events:
				timer.Reset(rest)
			case err := <-watcher.Errors:
				if ctx.Err() == nil {
					k.cfg.Log.Warn("watching the manifests of static pods", "err", err)
				}
				timer.Reset(rest)
			case <-timer.C:
				k.readStatic()
			}
		}
	})
	return nil
}

// readStatic brings the static pods to what the directory holds.
func (k *Kubelet) readStatic() {
	entries, err := os.ReadDir(k.cfg.StaticPodDir)
	if err != nil {
		k.cfg.Log.Warn("reading the manifests of static pods", "err", err)
		return
	}
	declared := map[types.NamespacedName]*corev1.Pod{}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(k.cfg.StaticPodDir, e.Name())
		data, err := os.ReadFile(path)
		if err == nil && len(strings.TrimSpace(string(data))) == 0 {
			continue
		}
		var pod *corev1.Pod
		if err == nil {
			pod, err = staticPod(path, data, k.cfg.NodeName)
		}
		if err != nil {
			k.cfg.Log.Warn("a manifest of a static pod cannot be used", "file", path, "err", err)
			continue
		}
		declared[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}] = pod
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, uid := range k.statics {
		if pod := declared[name]; pod == nil || pod.UID != uid {
			delete(k.statics, name)
			if w := k.workers[uid]; w != nil {
				w.remove(nil)
			}
			if mirror := k.mirrors[name]; mirror != nil {
				k.wg.Go(func() { k.deleteMirror(mirror) })
			}
		}
	}
	for name, pod := range declared {
		if k.statics[name] == pod.UID {
			continue
		}
		k.statics[name] = pod.UID
		k.launchStatic(pod)
	}
}

// launchStatic begins a static pod, unless an earlier version of it is still on its way out: then its end begins the new
// one. k.mu is held.
func (k *Kubelet) launchStatic(pod *corev1.Pod) {
	for _, w := range k.workers {
		if p := w.current.Load(); p.Name == pod.Name && p.Namespace == pod.Namespace && w.origin != fromAPI {
			return
		}
	}
	w := k.launch(pod, fromFile)
	if w == nil {
		return
	}
	mirror := k.mirrors[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}]
	switch {
	case mirror == nil:
		k.wg.Go(func() { k.createMirror(pod) })
	case mirror.Annotations[mirrorAnnotation] == string(pod.UID):
		w.writer.setMirror(mirror)
	default:
		k.wg.Go(func() { k.deleteMirror(mirror) }) // of an earlier version; when it is gone the new one is made
	}
}

// ended is called when nothing is left of a pod: a new version of a static pod may have waited for that.
func (k *Kubelet) ended(w *worker) {
	if w.origin == fromAPI || k.cfg.StaticPodDir == "" {
		return
	}
	k.mu.Lock()
	for name, uid := range k.statics {
		if k.workers[uid] == nil {
			delete(k.statics, name) // to be launched by the next look
		}
	}
	k.mu.Unlock()
	k.readStatic()
}

// staticPod makes the pod that a manifest describes. Its UID and name depend on the node and the file, so that they are
// the same after a restart and new after a change.
func staticPod(path string, data []byte, nodeName string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(data, pod); err != nil {
		return nil, err
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("it holds a %s %s instead of a v1 Pod", pod.APIVersion, pod.Kind)
	}
	if pod.Name == "" {
		return nil, errors.New("metadata.name: Required value: name or generateName is required")
	}
	sum := md5.New()
	fmt.Fprintf(sum, "host:%s\nfile:%s\n", nodeName, path)
	sum.Write(data)
	hash := hex.EncodeToString(sum.Sum(nil))
	pod.UID = types.UID(hash)
	pod.Name = strings.ToLower(pod.Name + "-" + nodeName)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.NodeName = nodeName
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[configHashAnnotation] = hash
	pod.Annotations[configSourceAnnotation] = configSourceFile
	pod.Annotations[configSeenAnnotation] = time.Now().UTC().Format(time.RFC3339Nano)
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.ConfigMap != nil || v.Secret != nil || v.Projected != nil {
			return nil, fmt.Errorf("spec.volumes[%d]: a static pod may not refer to API objects", i)
		}
	}
	core.DefaultPodSpec(&pod.Spec)
	return pod, nil
}

// createMirror shows a static pod in the API.
func (k *Kubelet) createMirror(pod *corev1.Pod) {
	mirror := pod.DeepCopy()
	mirror.UID, mirror.ResourceVersion = "", ""
	mirror.Annotations[mirrorAnnotation] = pod.Annotations[configHashAnnotation]
	node := k.object.Current()
	if node != nil {
		yes := true
		mirror.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &yes,
		}}
	}
	for delay := 100 * time.Millisecond; k.ctx.Err() == nil && k.worker(pod.UID) != nil; delay = min(2*delay, 10*time.Second) {
		made, err := k.cfg.Client.CoreV1().Pods(mirror.Namespace).Create(k.ctx, mirror, metav1.CreateOptions{})
		if err == nil {
			k.setMirror(made)
			return
		}
		if apierrors.IsAlreadyExists(err) {
			return // an older one; its own event settles it
		}
		k.cfg.Log.Warn("creating the mirror of a static pod failed", "pod", mirror.Namespace+"/"+mirror.Name, "err", err)
		select {
		case <-k.ctx.Done():
		case <-time.After(delay):
		}
	}
}

// setMirror takes a mirror that the API shows.
func (k *Kubelet) setMirror(mirror *corev1.Pod) {
	name := types.NamespacedName{Namespace: mirror.Namespace, Name: mirror.Name}
	k.mu.Lock()
	k.mirrors[name] = mirror
	uid, declared := k.statics[name]
	w := k.workers[uid]
	settled := k.settled
	k.mu.Unlock()
	stale := declared && mirror.Annotations[mirrorAnnotation] != string(uid) || !declared && settled
	switch {
	case stale || mirror.DeletionTimestamp != nil:
		k.wg.Go(func() { k.deleteMirror(mirror) })
	case w != nil:
		w.writer.setMirror(mirror)
	}
}

// mirrorGone makes a new mirror: what runs does not ask the API for its consent.
func (k *Kubelet) mirrorGone(mirror *corev1.Pod) {
	name := types.NamespacedName{Namespace: mirror.Namespace, Name: mirror.Name}
	k.mu.Lock()
	if known := k.mirrors[name]; known != nil && known.UID == mirror.UID {
		delete(k.mirrors, name)
	}
	w := k.workers[k.statics[name]]
	k.mu.Unlock()
	if w == nil {
		return
	}
	w.writer.setMirror(nil)
	k.wg.Go(func() { k.createMirror(w.pod) })
}

func (k *Kubelet) deleteMirror(mirror *corev1.Pod) {
	zero := int64(0)
	err := k.cfg.Client.CoreV1().Pods(mirror.Namespace).Delete(k.ctx, mirror.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &mirror.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && k.ctx.Err() == nil {
		k.cfg.Log.Warn("deleting the mirror of a static pod failed", "pod", mirror.Namespace+"/"+mirror.Name, "err", err)
	}
}
