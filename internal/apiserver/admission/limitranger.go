package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	resourcehelper "k8s.io/component-helpers/resource"
)

const limitRangerAnnotation = "kubernetes.io/limit-ranger"

var claims = corev1.Resource("persistentvolumeclaims")

// newLimitRanger gives containers the default requests and limits of their namespace, and enforces its minima, maxima and
// ratios for containers, pods and claims.
func newLimitRanger(c *Config) *Plugin {
	if c.LimitRanges == nil {
		return nil
	}
	ranges := func(ctx context.Context, a admission.Attributes) ([]*corev1.LimitRange, error) {
		list, err := c.LimitRanges(ctx, a.GetNamespace())
		if err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("reading limit ranges: %w", err))
		}
		return list, nil
	}
	return &Plugin{
		// The resources of a pod never change but by resize.
		Applies: func(t Target) bool {
			return t.Is(pods, admission.Create) || t.Is(claims, admission.Create, admission.Update) ||
				t.GroupResource == pods && t.Subresource == "resize" && t.Operation == admission.Update
		},
		Admit: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			pod, ok := a.GetObject().(*corev1.Pod)
			if !ok || a.GetOperation() != admission.Create {
				return nil
			}
			list, err := ranges(ctx, a)
			if err != nil {
				return err
			}
			for _, r := range list {
				defaultResources(pod, r)
			}
			return nil
		},
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			list, err := ranges(ctx, a)
			if err != nil {
				return err
			}
			var errs []error
			for _, r := range list {
				for i := range r.Spec.Limits {
					switch o := a.GetObject().(type) {
					case *corev1.Pod:
						errs = append(errs, limitPod(o, &r.Spec.Limits[i])...)
					case *corev1.PersistentVolumeClaim:
						if o.DeletionTimestamp == nil {
							errs = append(errs, limitClaim(o, &r.Spec.Limits[i])...)
						}
					}
				}
			}
			if len(errs) > 0 {
				return admission.NewForbidden(a, utilerrors.NewAggregate(errs))
			}
			return nil
		},
	}
}

// defaultResources completes all containers of the pod by the range's defaults, and notes it in an annotation.
func defaultResources(pod *corev1.Pod, r *corev1.LimitRange) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for _, l := range r.Spec.Limits {
		if l.Type != corev1.LimitTypeContainer {
			continue
		}
		for name, q := range l.DefaultRequest {
			requests[name] = q
		}
		for name, q := range l.Default {
			limits[name] = q
		}
	}
	var notes []string
	for i := range pod.Spec.Containers {
		notes = append(notes, defaultContainer(&pod.Spec.Containers[i], "container", requests, limits)...)
	}
	for i := range pod.Spec.InitContainers {
		notes = append(notes, defaultContainer(&pod.Spec.InitContainers[i], "init container", requests, limits)...)
	}
	if len(notes) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[limitRangerAnnotation] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
}

func defaultContainer(c *corev1.Container, what string, requests, limits corev1.ResourceList) []string {
	// A limit that the user gave is the default of the request and goes before the range's.
	for name, q := range c.Resources.Limits {
		if _, ok := c.Resources.Requests[name]; !ok {
			setQuantity(&c.Resources.Requests, name, q)
		}
	}
	var notes []string
	note := func(kind string, set []string) {
		if len(set) > 0 {
			slices.Sort(set)
			notes = append(notes, fmt.Sprintf("%s %s for %s %s", strings.Join(set, ", "), kind, what, c.Name))
		}
	}
	note("request", addMissing(&c.Resources.Requests, requests))
	note("limit", addMissing(&c.Resources.Limits, limits))
	return notes
}

func setQuantity(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = q.DeepCopy()
}

func addMissing(to *corev1.ResourceList, from corev1.ResourceList) []string {
	var set []string
	for name, q := range from {
		if _, ok := (*to)[name]; !ok {
			setQuantity(to, name, q)
			set = append(set, string(name))
		}
	}
	return set
}

func limitPod(pod *corev1.Pod, l *corev1.LimitRangeItem) []error {
	var errs []error
	switch l.Type {
	case corev1.LimitTypeContainer:
		for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range containers {
				errs = append(errs, limitResources(l, requestsOf(&containers[i].Resources), containers[i].Resources.Limits)...)
			}
		}
	case corev1.LimitTypePod:
		options := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
		completed := pod.DeepCopy()
		for _, containers := range [][]corev1.Container{completed.Spec.Containers, completed.Spec.InitContainers} {
			for i := range containers {
				containers[i].Resources.Requests = requestsOf(&containers[i].Resources)
			}
		}
		errs = limitResources(l, resourcehelper.PodRequests(completed, options), resourcehelper.PodLimits(completed, options))
	}
	return errs
}

// requestsOf gives the requests with their defaults: where there is only a limit, that.
func requestsOf(r *corev1.ResourceRequirements) corev1.ResourceList {
	requests := r.Requests
	cloned := false
	for name, q := range r.Limits {
		if _, ok := requests[name]; ok {
			continue
		}
		if !cloned {
			requests, cloned = r.Requests.DeepCopy(), true
		}
		setQuantity(&requests, name, q)
	}
	return requests
}

func limitResources(l *corev1.LimitRangeItem, requests, limits corev1.ResourceList) []error {
	var errs []error
	each(l.Min, func(name corev1.ResourceName, q resource.Quantity) {
		errs = append(errs, checkMin(l.Type, name, q, requests, limits))
	})
	each(l.Max, func(name corev1.ResourceName, q resource.Quantity) {
		errs = append(errs, checkMax(l.Type, name, q, requests, limits))
	})
	each(l.MaxLimitRequestRatio, func(name corev1.ResourceName, q resource.Quantity) {
		errs = append(errs, checkRatio(l.Type, name, q, requests, limits))
	})
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// each walks in the order of names, so that messages are stable.
func each(list corev1.ResourceList, fn func(corev1.ResourceName, resource.Quantity)) {
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fn(name, list[name])
	}
}

func limitClaim(claim *corev1.PersistentVolumeClaim, l *corev1.LimitRangeItem) []error {
	if l.Type != corev1.LimitTypePersistentVolumeClaim {
		return nil
	}
	var errs []error
	requests := claim.Spec.Resources.Requests
	each(l.Min, func(name corev1.ResourceName, q resource.Quantity) {
		errs = append(errs, checkMin(l.Type, name, q, requests, nil))
	})
	each(l.Max, func(name corev1.ResourceName, q resource.Quantity) {
		request, ok := requests[name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", name, l.Type, q.String()))
		case request.Cmp(q) > 0:
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, l.Type, q.String(), request.String()))
		}
	})
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func checkMin(t corev1.LimitType, name corev1.ResourceName, q resource.Quantity, requests, limits corev1.ResourceList) error {
	request, ok := requests[name]
	if !ok {
		return fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", name, t, q.String())
	}
	if request.Cmp(q) < 0 {
		return fmt.Errorf("minimum %s usage per %s is %s, but request is %s", name, t, q.String(), request.String())
	}
	if limit, ok := limits[name]; ok && limit.Cmp(q) < 0 {
		return fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", name, t, q.String(), limit.String())
	}
	return nil
}

func checkMax(t corev1.LimitType, name corev1.ResourceName, q resource.Quantity, requests, limits corev1.ResourceList) error {
	limit, ok := limits[name]
	if !ok {
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", name, t, q.String())
	}
	if limit.Cmp(q) > 0 {
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", name, t, q.String(), limit.String())
	}
	if request, ok := requests[name]; ok && request.Cmp(q) > 0 {
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, t, q.String(), request.String())
	}
	return nil
}

func checkRatio(t corev1.LimitType, name corev1.ResourceName, q resource.Quantity, requests, limits corev1.ResourceList) error {
	request, limit := requests[name], limits[name]
	if request.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, t, q.String())
	}
	if limit.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, t, q.String())
	}
	ratio := limit.AsApproximateFloat64() / request.AsApproximateFloat64()
	if ratio > q.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, t, q.String(), ratio)
	}
	return nil
}
