package networking

import (
	"context"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
)

// ingressClass is the annotation that spec.ingressClassName has replaced.
const ingressClass = "kubernetes.io/ingress.class"

// shownHosts is how many hosts the table shows.
const shownHosts = 3

// Ingress describes ingresses.
func Ingress() *api.Resource {
	versions := []string{networkingv1.SchemeGroupVersion.String()}
	return api.Define[networkingv1.Ingress, networkingv1.IngressList](networkingv1.SchemeGroupVersion, api.Resource{
		Plural: "ingresses", Singular: "ingress", Kind: "Ingress", ShortNames: []string{"ing"},
		Namespaced: true,
		Prefix:     "ingress",
		Strategy: api.Typed[*networkingv1.Ingress]{
			PrepareCreate: func(_ context.Context, ing *networkingv1.Ingress) {
				ing.Status = networkingv1.IngressStatus{}
				ing.Generation = 1
			},
			PrepareUpdate: func(_ context.Context, ing, old *networkingv1.Ingress) {
				ing.Status = old.Status
				if !apiequality.Semantic.DeepEqual(ing.Spec, old.Spec) {
					ing.Generation = old.Generation + 1
				}
			},
			Validate: func(_ context.Context, ing *networkingv1.Ingress) field.ErrorList {
				var errs field.ErrorList
				if value, ok := ing.Annotations[ingressClass]; ok && ing.Spec.IngressClassName != nil {
					errs = append(errs, field.Invalid(field.NewPath("annotations").Child(ingressClass), value,
						"can not be set when the class field is also set"))
				}
				return append(errs, validateIngressSpec(&ing.Spec, field.NewPath("spec"))...)
			},
			ValidateUpdate: func(_ context.Context, ing, _ *networkingv1.Ingress) field.ErrorList {
				return validateIngressSpec(&ing.Spec, field.NewPath("spec"))
			},
			Warn: func(_ context.Context, ing, old *networkingv1.Ingress) []string {
				_, annotated := ing.Annotations[ingressClass]
				if !annotated || old != nil {
					return nil
				}
				return []string{`annotation "` + ingressClass + `" is deprecated, please use 'spec.ingressClassName' instead`}
			},
			ResetFields: api.Reset(versions, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(networkingv1.SchemeGroupVersion.WithKind("Ingress"), api.Typed[*networkingv1.Ingress]{
				PrepareUpdate:  func(_ context.Context, ing, old *networkingv1.Ingress) { ing.Spec = old.Spec },
				ValidateUpdate: validateIngressStatus,
				ResetFields:    api.Reset(versions, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Class", "string", "The name of the IngressClass resource that should be used for additional configuration"),
			api.Column("Hosts", "string", "Hosts that incoming requests are matched against before the ingress rule"),
			api.Column("Address", "string", "Address is a list containing ingress points for the load-balancer"),
			api.Column("Ports", "string", "Ports of TLS configurations that open"),
			api.AgeColumn(),
		},
		Row: api.Row(ingressRow),
	})
}

func ingressRow(ing *networkingv1.Ingress) []any {
	var hosts []string
	for _, rule := range ing.Spec.Rules {
		if rule.Host != "" {
			hosts = append(hosts, rule.Host)
		}
	}
	hostsCell := "*"
	if len(hosts) > 0 {
		hostsCell = api.ListCell(hosts, shownHosts)
	}
	var addresses []string
	for _, ingress := range ing.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			addresses = append(addresses, ingress.IP)
		} else if ingress.Hostname != "" {
			addresses = append(addresses, ingress.Hostname)
		}
	}
	slices.Sort(addresses)
	ports := "80"
	if len(ing.Spec.TLS) > 0 {
		ports = "80, 443"
	}
	return []any{
		ing.Name, ptr.Deref(ing.Spec.IngressClassName, "<none>"), hostsCell,
		strings.Join(slices.Compact(addresses), ","), ports, api.Since(ing.CreationTimestamp),
	}
}
