package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"

	"github.com/proa-k8s/proa/internal/store"
)

var priorityClasses = schedulingv1.Resource("priorityclasses")

// SystemPriorityClasses are the classes of the cluster's own pods: they exist from the start.
func SystemPriorityClasses() []*schedulingv1.PriorityClass {
	preempt := corev1.PreemptLowerPriority
	class := func(name string, value int32, description string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: description, PreemptionPolicy: &preempt,
		}
	}
	return []*schedulingv1.PriorityClass{
		class("system-node-critical", 2000001000, "Used for system critical pods that must not be moved from their current node."),
		class("system-cluster-critical", 2000000000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

// newPriority turns the name of a pod's priority class into a number, and sees to it that there is one default class only.
func newPriority(c *Config) *Plugin {
	if c.PriorityClasses == nil || c.PriorityClassSet == nil {
		return nil
	}
	return &Plugin{
		Applies: func(t Target) bool {
			return t.Is(pods, admission.Create, admission.Update) || t.Is(priorityClasses, admission.Create, admission.Update)
		},
		Admit: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			pod, ok := a.GetObject().(*corev1.Pod)
			if !ok {
				return nil
			}
			if a.GetOperation() == admission.Update {
				keepPriority(pod, a.GetOldObject())
				return nil
			}
			class, err := c.classOf(ctx, a, pod.Spec.PriorityClassName)
			if err != nil {
				return err
			}
			return setPriority(a, pod, class)
		},
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			class, ok := a.GetObject().(*schedulingv1.PriorityClass)
			if !ok || !class.GlobalDefault {
				return nil
			}
			present, err := c.defaultClass(ctx)
			if err != nil {
				return err
			}
			if present != nil && (a.GetOperation() == admission.Create || present.Name != class.Name) {
				return admission.NewForbidden(a, fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", present.Name))
			}
			return nil
		},
	}
}

// keepPriority fills in what an update left out, since it can't change.
func keepPriority(pod *corev1.Pod, old any) {
	before, ok := old.(*corev1.Pod)
	if !ok {
		return
	}
	if pod.Spec.Priority == nil && before.Spec.Priority != nil {
		pod.Spec.Priority = before.Spec.Priority
	}
	if pod.Spec.PreemptionPolicy == nil && before.Spec.PreemptionPolicy != nil {
		pod.Spec.PreemptionPolicy = before.Spec.PreemptionPolicy
	}
}

// classOf gives the named class, or the default one for no name; nil when there is none.
func (c *Config) classOf(ctx context.Context, a admission.Attributes, name string) (*schedulingv1.PriorityClass, error) {
	if name == "" {
		return c.defaultClass(ctx)
	}
	class, err := c.PriorityClasses(ctx, "", name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, admission.NewForbidden(a, fmt.Errorf("no PriorityClass with name %v was found", name))
	case err != nil:
		return nil, apierrors.NewInternalError(fmt.Errorf("reading PriorityClass %s: %w", name, err))
	}
	return class, nil
}

// defaultClass gives the default class; should there be several, the one of the lowest value.
func (c *Config) defaultClass(ctx context.Context) (*schedulingv1.PriorityClass, error) {
	all, err := c.PriorityClassSet(ctx, "")
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("reading priority classes: %w", err))
	}
	var lowest *schedulingv1.PriorityClass
	for _, class := range all {
		if class.GlobalDefault && (lowest == nil || class.Value < lowest.Value) {
			lowest = class
		}
	}
	return lowest, nil
}

func setPriority(a admission.Attributes, pod *corev1.Pod, class *schedulingv1.PriorityClass) error {
	value, policy := int32(0), corev1.PreemptLowerPriority
	if class != nil {
		pod.Spec.PriorityClassName = class.Name
		value = class.Value
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	if p := pod.Spec.Priority; p != nil && *p != value {
		return admission.NewForbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *p, value))
	}
	if p := pod.Spec.PreemptionPolicy; p != nil && *p != policy {
		return admission.NewForbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *p, policy))
	}
	pod.Spec.Priority, pod.Spec.PreemptionPolicy = &value, &policy
	return nil
}
