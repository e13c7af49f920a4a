package core

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
)

// Service describes services. Cluster IPs and node ports are not given here but together with the write, by the API
// server's allocator; what is validated here may still lack them.
func Service() *api.Resource {
	kind := corev1.SchemeGroupVersion.WithKind("Service")
	return api.Define[corev1.Service, corev1.ServiceList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "services", Singular: "service", Kind: "Service", ShortNames: []string{"svc"}, Categories: []string{"all"},
		Namespaced: true, ReturnDeleted: true,
		Prefix: "services/specs",
		Strategy: api.Typed[*corev1.Service]{
			Default: defaultService,
			PrepareCreate: func(_ context.Context, svc *corev1.Service) {
				svc.Status = corev1.ServiceStatus{}
				normalizeClusterIPs(svc, nil)
			},
			PrepareUpdate: func(_ context.Context, svc, old *corev1.Service) { prepareServiceUpdate(svc, old) },
			Validate:      func(_ context.Context, svc *corev1.Service) field.ErrorList { return validateService(svc, nil) },
			ValidateUpdate: func(_ context.Context, svc, old *corev1.Service) field.ErrorList {
				return validateServiceUpdate(svc, old)
			},
			Warn:         warnService,
			ResetFields:  api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("status")),
			ValidateName: apivalidation.NameIsDNSLabel, // since 1.37; it was an RFC 1035 label before
		}.Strategy(),
		Subresources: []api.Subresource{
			{
				Name: "proxy", Kind: corev1.SchemeGroupVersion.WithKind("ServiceProxyOptions"),
				Verbs: []string{"create", "delete", "get", "patch", "update"},
			},
			api.Status(kind, api.Typed[*corev1.Service]{
				PrepareUpdate:  func(_ context.Context, svc, old *corev1.Service) { svc.Spec = old.Spec },
				ValidateUpdate: validateServiceStatusUpdate,
				ResetFields:    api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns:          serviceColumns(),
		Row:              api.Row(serviceRow),
		SelectableFields: []string{"spec.clusterIP", "spec.type"},
		Fields: api.Fields(func(svc *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": svc.Spec.ClusterIP, "spec.type": string(svc.Spec.Type)}
		}),
	})
}

func serviceColumns() []metav1.TableColumnDefinition {
	spec := corev1.ServiceSpec{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.Column("Type", "string", spec["type"]),
		api.Column("Cluster-IP", "string", spec["clusterIP"]),
		api.Column("External-IP", "string", spec["externalIPs"]),
		api.Column("Port(s)", "string", spec["ports"]),
		api.AgeColumn(),
		api.WideColumn("Selector", "string", spec["selector"]),
	}
}

func serviceRow(svc *corev1.Service) []any {
	clusterIP := "<none>"
	if len(svc.Spec.ClusterIPs) > 0 {
		clusterIP = svc.Spec.ClusterIPs[0]
	}
	return []any{
		svc.Name, string(svc.Spec.Type), clusterIP, serviceExternalCell(svc), servicePortsCell(svc.Spec.Ports),
		api.Since(svc.CreationTimestamp), api.LabelsCell(svc.Spec.Selector),
	}
}

func serviceExternalCell(svc *corev1.Service) string {
	switch svc.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return svc.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		addresses := append(loadBalancerAddresses(svc), svc.Spec.ExternalIPs...)
		if len(addresses) == 0 {
			return "<pending>"
		}
		return strings.Join(addresses, ",")
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		if len(svc.Spec.ExternalIPs) > 0 {
			return strings.Join(svc.Spec.ExternalIPs, ",")
		}
		return "<none>"
	default:
		return "<unknown>"
	}
}

func loadBalancerAddresses(svc *corev1.Service) []string {
	var addresses []string
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			addresses = append(addresses, ingress.IP)
		} else if ingress.Hostname != "" {
			addresses = append(addresses, ingress.Hostname)
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

func servicePortsCell(ports []corev1.ServicePort) string {
	if len(ports) == 0 {
		return "<none>"
	}
	cells := make([]string, len(ports))
	for i, port := range ports {
		if port.NodePort > 0 {
			cells[i] = fmt.Sprintf("%d:%d/%s", port.Port, port.NodePort, port.Protocol)
		} else {
			cells[i] = fmt.Sprintf("%d/%s", port.Port, port.Protocol)
		}
	}
	return strings.Join(cells, ",")
}
