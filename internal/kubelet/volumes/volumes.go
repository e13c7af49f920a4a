// Package volumes makes the volumes of pods be there.
//
// What flows in are pods and the objects that their volumes show; what flows out are directories and mounts below
// <pods>/<uid>/volumes, and the mounts that containers are started with. Setup is repeated to bring the contents up to
// date and does nothing that is done already; Teardown needs no memory of what was set up.
package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Config is what a Manager is made of.
type Config struct {
	// PodsDir holds a directory for each pod, named by its UID.
	PodsDir string

	ConfigMap func(ctx context.Context, pod *corev1.Pod, name string) (*corev1.ConfigMap, error)
	Secret    func(ctx context.Context, pod *corev1.Pod, name string) (*corev1.Secret, error)
	// Token asks for a token of a service account.
	Token func(ctx context.Context, namespace, serviceAccount string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)

	// FieldValue and ResourceValue are those of the downward API; container is never nil.
	FieldValue    func(pod *corev1.Pod, path string) (string, error)
	ResourceValue func(pod *corev1.Pod, container *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error)
}

// Manager sets up volumes.
type Manager struct {
	cfg Config

	mu     sync.Mutex
	tokens map[tokenKey]token
}

// New makes a Manager.
func New(cfg Config) *Manager {
	return &Manager{cfg: cfg, tokens: map[tokenKey]token{}}
}

// PodDir is the directory of a pod.
func (m *Manager) PodDir(uid types.UID) string { return filepath.Join(m.cfg.PodsDir, string(uid)) }

// Error says which volume could not be set up.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// source is a kind of volume.
type source struct {
	// plugin names the directory below volumes/, as Kubernetes names it; empty when nothing is kept there.
	plugin string
	// setup brings the volume at dir up to date. refresh, if not zero, is when it must be called again.
	setup func(m *Manager, ctx context.Context, pod *corev1.Pod, v *corev1.Volume, dir string) (refresh time.Time, err error)
	// readOnly volumes cannot be written by containers.
	readOnly bool
}

// sourceOf finds the kind of a volume.
func sourceOf(v *corev1.Volume) (source, error) {
	switch {
	case v.EmptyDir != nil:
		return source{plugin: "kubernetes.io~empty-dir", setup: (*Manager).emptyDir}, nil
	case v.HostPath != nil:
		return source{setup: (*Manager).hostPath}, nil
	case v.ConfigMap != nil:
		return source{plugin: "kubernetes.io~configmap", setup: (*Manager).configMap, readOnly: true}, nil
	case v.Secret != nil:
		return source{plugin: "kubernetes.io~secret", setup: (*Manager).secret, readOnly: true}, nil
	case v.DownwardAPI != nil:
		return source{plugin: "kubernetes.io~downward-api", setup: (*Manager).downwardAPI, readOnly: true}, nil
	case v.Projected != nil:
		return source{plugin: "kubernetes.io~projected", setup: (*Manager).projected, readOnly: true}, nil
	case v.Image != nil:
		// The runtime mounts it; nothing is to be set up.
		return source{setup: func(*Manager, context.Context, *corev1.Pod, *corev1.Volume, string) (time.Time, error) {
			return time.Time{}, nil
		}, readOnly: true}, nil
	}
	return source{}, errors.New("no volume plugin matched")
}

// Setup makes all volumes of the pod be there and current, in parallel. refresh, if not zero, is when to call it again.
// The error holds an *Error for each volume that failed.
func (m *Manager) Setup(ctx context.Context, pod *corev1.Pod) (refresh time.Time, err error) {
	if err := os.MkdirAll(filepath.Join(m.PodDir(pod.UID), "volumes"), 0o750); err != nil {
		return time.Time{}, err
	}
	type result struct {
		refresh time.Time
		err     error
	}
	results := make([]result, len(pod.Spec.Volumes))
	var wg sync.WaitGroup
	for i := range pod.Spec.Volumes {
		one := func() {
			r := &results[i]
			r.refresh, r.err = m.setup(ctx, pod, &pod.Spec.Volumes[i])
			if r.err != nil {
				r.err = &Error{Volume: pod.Spec.Volumes[i].Name, Err: r.err}
			}
		}
		if len(pod.Spec.Volumes) == 1 {
			one()
			break
		}
		wg.Go(one)
	}
	wg.Wait()
	var errs []error
	for _, r := range results {
		errs = append(errs, r.err)
		if !r.refresh.IsZero() && (refresh.IsZero() || r.refresh.Before(refresh)) {
			refresh = r.refresh
		}
	}
	return refresh, errors.Join(errs...)
}

func (m *Manager) setup(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (time.Time, error) {
	s, err := sourceOf(v)
	if err != nil {
		return time.Time{}, err
	}
	dir, err := m.Path(pod, v.Name)
	if err != nil {
		return time.Time{}, err
	}
	return s.setup(m, ctx, pod, v, dir)
}

// Path is where a volume of the pod is on the node.
func (m *Manager) Path(pod *corev1.Pod, name string) (string, error) {
	v := find(pod, name)
	if v == nil {
		return "", fmt.Errorf("volume %q not found", name)
	}
	s, err := sourceOf(v)
	if err != nil {
		return "", err
	}
	if v.HostPath != nil {
		return v.HostPath.Path, nil
	}
	return filepath.Join(m.PodDir(pod.UID), "volumes", s.plugin, name), nil
}

func find(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

// Teardown unmounts everything below the directory of a pod and removes it.
func (m *Manager) Teardown(uid types.UID) error {
	m.forgetTokens(uid)
	dir := m.PodDir(uid)
	if uid == "" || strings.ContainsAny(string(uid), "/") {
		return fmt.Errorf("invalid pod UID %q", uid)
	}
	if _, err := os.Lstat(dir); os.IsNotExist(err) {
		return nil
	}
	if err := unmountBelow(dir); err != nil {
		return fmt.Errorf("unmounting the volumes of pod %s: %w", uid, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the volumes of pod %s: %w", uid, err)
	}
	return nil
}

// Present are the UIDs of pods that have a directory.
func (m *Manager) Present() ([]types.UID, error) {
	entries, err := os.ReadDir(m.cfg.PodsDir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	var uids []types.UID
	for _, e := range entries {
		uids = append(uids, types.UID(e.Name()))
	}
	return uids, err
}
