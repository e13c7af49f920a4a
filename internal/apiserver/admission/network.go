package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apiserver/pkg/admission"
)

var ingresses, services = networkingv1.Resource("ingresses"), corev1.Resource("services")

// newDefaultIngressClass gives ingresses without a class the default one.
func newDefaultIngressClass(c *Config) *Plugin {
	if c.IngressClasses == nil {
		return nil
	}
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(ingresses, admission.Create) },
		Admit: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			ingress, ok := a.GetObject().(*networkingv1.Ingress)
			if !ok || ingress.Spec.IngressClassName != nil {
				return nil
			}
			if _, ok := ingress.Annotations["kubernetes.io/ingress.class"]; ok {
				return nil
			}
			all, err := c.IngressClasses(ctx, "")
			if err != nil {
				return admission.NewForbidden(a, fmt.Errorf("reading ingress classes: %w", err))
			}
			if class := newestDefault(all, networkingv1.AnnotationIsDefaultIngressClass); class != nil {
				ingress.Spec.IngressClassName = &class.Name
			}
			return nil
		},
	}
}

// newDenyServiceExternalIPs refuses external IPs that a Service didn't have before: their traffic could be anyone's. It is
// off by default.
func newDenyServiceExternalIPs() *Plugin {
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(services, admission.Create, admission.Update) },
		Validate: func(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			service, ok := a.GetObject().(*corev1.Service)
			if !ok {
				return nil
			}
			var before []string
			if old, ok := a.GetOldObject().(*corev1.Service); ok && old != nil {
				before = old.Spec.ExternalIPs
			}
			for _, ip := range service.Spec.ExternalIPs {
				if !slices.Contains(before, ip) {
					//lint:ignore ST1005 the words are upstream's
					return admission.NewForbidden(a, errors.New("Use of external IPs is denied by admission control."))
				}
			}
			return nil
		},
	}
}
