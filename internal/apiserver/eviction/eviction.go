// Package eviction deletes pods as far as the disruption budgets that protect them allow: the subresource pods/eviction.
//
// What flows in is an Eviction, from who drains a node; what flows out are an entry in the status of the budget, a condition of
// the pod, and its deletion. What is allowed is computed by the disruption controller; here it is used up. Source: KEP-85,
// KEP-3017 (unhealthy pods), KEP-3329 (the condition).
package eviction

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/store"
)

var (
	podResource = schema.GroupResource{Resource: "pods"}
	// Upstream's errors have the singular.
	budgetResource = schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudget"}
)

// attempts is how often a pod that changes under the hands of an eviction without preconditions is looked at again.
const attempts = 20

// Config is what an eviction works with.
type Config struct {
	Pods, Budgets *store.Cache
	// Delete deletes a pod as a request of a user who may do so would, the finalizers and grace period included. Errors are
	// Status errors.
	Delete func(ctx context.Context, namespace, name string, options metav1.DeleteOptions) error
}

// Create makes the function that serves a POST of an Eviction.
func Create(c Config) apiserver.CreateFunc {
	e := &evictor{Config: c, budgets: lookup.List[*policyv1.PodDisruptionBudget](c.Budgets)}
	return e.create
}

type evictor struct {
	Config
	budgets lookup.Lister[*policyv1.PodDisruptionBudget]
}

func (e *evictor) create(ctx context.Context, namespace, name string, obj runtime.Object, options *metav1.CreateOptions) (runtime.Object, error) {
	meta, deletion, err := parts(obj)
	if err != nil {
		return nil, err
	}
	if meta.Name != name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	if deletion, err = withDryRun(deletion, options.DryRun); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if errs := metav1validation.ValidateDeleteOptions(deletion); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "DeleteOptions"}, "", errs)
	}
	if err := e.evict(ctx, namespace, name, deletion); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess, Code: 201}, nil
}

// parts takes an Eviction of any version apart. The options of the deletion are never nil.
func parts(obj runtime.Object) (metav1.ObjectMeta, *metav1.DeleteOptions, error) {
	var meta metav1.ObjectMeta
	var options *metav1.DeleteOptions
	switch v := obj.(type) {
	case *policyv1.Eviction:
		meta, options = v.ObjectMeta, v.DeleteOptions
	case *policyv1beta1.Eviction:
		meta, options = v.ObjectMeta, v.DeleteOptions
	default:
		return meta, nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", obj))
	}
	if options == nil {
		options = &metav1.DeleteOptions{}
	}
	return meta, options, nil
}

// withDryRun gives the deletion the dry run that the request asks for.
func withDryRun(options *metav1.DeleteOptions, request []string) (*metav1.DeleteOptions, error) {
	switch {
	case len(request) == 0 || slices.Equal(request, options.DryRun):
		return options, nil
	case len(options.DryRun) == 0:
		options = options.DeepCopy()
		options.DryRun = request
		return options, nil
	default:
		//lint:ignore ST1005 the words are upstream's
		return nil, fmt.Errorf("Non-matching dry-run options in request and content: %v and %v", request, options.DryRun)
	}
}

// evict deletes the pod if its budget allows it.
func (e *evictor) evict(ctx context.Context, namespace, name string, options *metav1.DeleteOptions) error {
	bound := options.Preconditions != nil && options.Preconditions.ResourceVersion != nil
	for attempt := 1; ; attempt++ {
		pod, err := e.pod(ctx, namespace, name)
		if err != nil {
			return err
		}
		if !unprotected(pod) {
			return e.evictProtected(ctx, pod, options, bound)
		}
		// A pod that has not started could start meanwhile, and then a budget would count.
		err = e.delete(ctx, pod, options, !bound && pod.Status.Phase == corev1.PodPending && pod.DeletionTimestamp == nil)
		if !apierrors.IsConflict(err) || bound || attempt == attempts {
			return err
		}
	}
}

// evictProtected deletes a pod that budgets apply to.
func (e *evictor) evictProtected(ctx context.Context, pod *corev1.Pod, options *metav1.DeleteOptions, bound bool) error {
	budget, err := e.budgetOf(ctx, pod)
	if err != nil {
		return err
	}
	if budget == nil {
		return e.delete(ctx, pod, options, false)
	}
	if mayGoUnhealthy(pod, budget) {
		// It doesn't count as long as it stays as it was seen.
		err := e.delete(ctx, pod, options, !bound)
		if apierrors.IsConflict(err) && !bound {
			return tooEarly(budget.Name)
		}
		return err
	}
	if err := e.useUp(ctx, budget, pod.Name, dryrun.IsDryRun(options.DryRun)); err != nil {
		return err
	}
	return e.delete(ctx, pod, options, false)
}

// pod reads a pod as new as the store.
func (e *evictor) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	pod, err := lookup.GetLatest[*corev1.Pod](e.Pods)(ctx, namespace, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, apierrors.NewNotFound(podResource, name)
	}
	return pod, err
}

// budgetOf gives the one budget that protects the pod, or nil.
func (e *evictor) budgetOf(ctx context.Context, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	all, err := e.budgets(ctx, pod.Namespace)
	if err != nil {
		return nil, fmt.Errorf("listing disruption budgets: %w", err)
	}
	var found *policyv1.PodDisruptionBudget
	for _, b := range all {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) { // what can't be parsed was refused when it was written
			continue
		}
		if found != nil {
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: 500,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			}}
		}
		found = b
	}
	return found, nil
}

// useUp takes one disruption from the budget and notes there for which pod.
func (e *evictor) useUp(ctx context.Context, budget *policyv1.PodDisruptionBudget, pod string, dry bool) error {
	_, err := e.Budgets.Update(ctx, budget.Namespace, budget.Name, func(cur *store.Object) (runtime.Object, []store.Op, error) {
		obj, err := cur.Decoded()
		if err != nil {
			return nil, nil, err
		}
		used, err := disrupt(obj.(*policyv1.PodDisruptionBudget), pod, metav1.Now())
		if dry || err != nil {
			return obj, nil, err // nothing to write
		}
		return used, nil, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return apierrors.NewNotFound(schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudgets"}, budget.Name)
	}
	return err
}

// delete marks the pod as disrupted and deletes it; guard demands that it is still as it was seen.
func (e *evictor) delete(ctx context.Context, pod *corev1.Pod, options *metav1.DeleteOptions, guard bool) error {
	options = options.DeepCopy()
	if guard {
		if options.Preconditions == nil {
			options.Preconditions = &metav1.Preconditions{}
		}
		options.Preconditions.ResourceVersion = &pod.ResourceVersion
	}
	if !dryrun.IsDryRun(options.DryRun) {
		if err := e.mark(ctx, pod, options.Preconditions); err != nil {
			return err
		}
	}
	return e.Delete(ctx, pod.Namespace, pod.Name, *options)
}
