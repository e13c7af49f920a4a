package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"

	"github.com/proa-k8s/proa/internal/store"
)

// newRuntimeClass gives pods the overhead of their runtime class and its constraints on nodes.
func newRuntimeClass(c *Config) *Plugin {
	if c.RuntimeClasses == nil {
		return nil
	}
	class := func(ctx context.Context, a admission.Attributes, pod *corev1.Pod) (*nodev1.RuntimeClass, error) {
		if pod.Spec.RuntimeClassName == nil {
			return nil, nil
		}
		rc, err := c.RuntimeClasses(ctx, "", *pod.Spec.RuntimeClassName)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil, admission.NewForbidden(a, fmt.Errorf("pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName))
		case err != nil:
			return nil, apierrors.NewInternalError(fmt.Errorf("reading RuntimeClass %s: %w", *pod.Spec.RuntimeClassName, err))
		}
		return rc, nil
	}
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(pods, admission.Create) },
		Admit: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			pod, ok := a.GetObject().(*corev1.Pod)
			if !ok {
				return nil
			}
			rc, err := class(ctx, a, pod)
			if err != nil || rc == nil {
				return err
			}
			if err := setOverhead(a, pod, rc); err != nil {
				return err
			}
			return setScheduling(a, pod, rc)
		},
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			pod, ok := a.GetObject().(*corev1.Pod)
			if !ok {
				return nil
			}
			rc, err := class(ctx, a, pod)
			if err != nil {
				return err
			}
			switch {
			case rc != nil && rc.Overhead != nil:
				if !equality.Semantic.DeepEqual(rc.Overhead.PodFixed, pod.Spec.Overhead) {
					return admission.NewForbidden(a, errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
				}
			case len(pod.Spec.Overhead) > 0:
				return admission.NewForbidden(a, errors.New("pod rejected: Overhead set without corresponding RuntimeClass defined Overhead"))
			}
			return nil
		},
	}
}

func setOverhead(a admission.Attributes, pod *corev1.Pod, rc *nodev1.RuntimeClass) error {
	if rc.Overhead == nil {
		return nil
	}
	if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(rc.Overhead.PodFixed, pod.Spec.Overhead) {
		return admission.NewForbidden(a, errors.New("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
	}
	pod.Spec.Overhead = rc.Overhead.PodFixed.DeepCopy()
	return nil
}

func setScheduling(a admission.Attributes, pod *corev1.Pod, rc *nodev1.RuntimeClass) error {
	if rc.Scheduling == nil {
		return nil
	}
	selector := map[string]string{}
	for k, v := range pod.Spec.NodeSelector {
		selector[k] = v
	}
	for k, v := range rc.Scheduling.NodeSelector {
		if have, ok := selector[k]; ok && have != v {
			return admission.NewForbidden(a, fmt.Errorf("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, have))
		}
		selector[k] = v
	}
	if len(selector) > 0 {
		pod.Spec.NodeSelector = selector
	}
	for _, t := range rc.Scheduling.Tolerations {
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(have corev1.Toleration) bool { return equality.Semantic.DeepEqual(have, t) }) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
		}
	}
	return nil
}
