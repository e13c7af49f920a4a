package networking

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// NetworkPolicy describes networkpolicies.
func NetworkPolicy() *api.Resource {
	return api.Define[networkingv1.NetworkPolicy, networkingv1.NetworkPolicyList](networkingv1.SchemeGroupVersion, api.Resource{
		Plural: "networkpolicies", Singular: "networkpolicy", Kind: "NetworkPolicy", ShortNames: []string{"netpol"},
		Namespaced: true,
		Prefix:     "networkpolicies",
		Strategy: api.Typed[*networkingv1.NetworkPolicy]{
			Default:       defaultPolicy,
			PrepareCreate: func(_ context.Context, p *networkingv1.NetworkPolicy) { p.Generation = 1 },
			PrepareUpdate: func(_ context.Context, p, old *networkingv1.NetworkPolicy) {
				if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
					p.Generation = old.Generation + 1
				}
			},
			Validate: func(_ context.Context, p *networkingv1.NetworkPolicy) field.ErrorList {
				return validatePolicy(&p.Spec, nil)
			},
			ValidateUpdate: func(_ context.Context, p, old *networkingv1.NetworkPolicy) field.ErrorList {
				return validatePolicy(&p.Spec, cidrsOf(&old.Spec))
			},
			Warn: warnPolicy,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Pod-Selector", "string", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(p *networkingv1.NetworkPolicy) []any {
			return []any{p.Name, api.SelectorCell(&p.Spec.PodSelector), api.Since(p.CreationTimestamp)}
		}),
	})
}

func defaultPolicy(p *networkingv1.NetworkPolicy) {
	spec := &p.Spec
	setProtocols := func(ports []networkingv1.NetworkPolicyPort) {
		for i := range ports {
			if ports[i].Protocol == nil {
				ports[i].Protocol = ptr.To(corev1.ProtocolTCP)
			}
		}
	}
	for i := range spec.Ingress {
		setProtocols(spec.Ingress[i].Ports)
	}
	for i := range spec.Egress {
		setProtocols(spec.Egress[i].Ports)
	}
	if len(spec.PolicyTypes) == 0 {
		spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) > 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

// eachPeer calls f for all peers of a policy.
func eachPeer(spec *networkingv1.NetworkPolicySpec, f func(peer *networkingv1.NetworkPolicyPeer, path *field.Path)) {
	path := field.NewPath("spec")
	for i := range spec.Ingress {
		for j := range spec.Ingress[i].From {
			f(&spec.Ingress[i].From[j], path.Child("ingress").Index(i).Child("from").Index(j))
		}
	}
	for i := range spec.Egress {
		for j := range spec.Egress[i].To {
			f(&spec.Egress[i].To[j], path.Child("egress").Index(i).Child("to").Index(j))
		}
	}
}

func cidrsOf(spec *networkingv1.NetworkPolicySpec) []string {
	var cidrs []string
	eachPeer(spec, func(peer *networkingv1.NetworkPolicyPeer, _ *field.Path) {
		if peer.IPBlock != nil {
			cidrs = append(append(cidrs, peer.IPBlock.CIDR), peer.IPBlock.Except...)
		}
	})
	return cidrs
}

// validatePolicy checks a policy; ranges that are there before may stay although they are written badly.
func validatePolicy(spec *networkingv1.NetworkPolicySpec, before []string) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateSelector(&spec.PodSelector, path.Child("podSelector"))
	for i := range spec.Ingress {
		errs = append(errs, validatePolicyPorts(spec.Ingress[i].Ports, path.Child("ingress").Index(i).Child("ports"))...)
	}
	for i := range spec.Egress {
		errs = append(errs, validatePolicyPorts(spec.Egress[i].Ports, path.Child("egress").Index(i).Child("ports"))...)
	}
	eachPeer(spec, func(peer *networkingv1.NetworkPolicyPeer, at *field.Path) {
		errs = append(errs, validatePeer(peer, before, at)...)
	})
	types := path.Child("policyTypes")
	if len(spec.PolicyTypes) > 2 {
		return append(errs, field.Invalid(types, spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, typ := range spec.PolicyTypes {
		errs = append(errs, api.ValidateSupported(types.Index(i), typ, networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress)...)
	}
	return errs
}

func validateSelector(selector *metav1.LabelSelector, path *field.Path) field.ErrorList {
	return metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, path)
}

func validatePolicyPorts(ports []networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range ports {
		port, at := &ports[i], path.Index(i)
		if port.Protocol != nil {
			errs = append(errs, api.ValidateSupported(at.Child("protocol"), *port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
		end := at.Child("endPort")
		switch {
		case port.Port == nil:
			if port.EndPort != nil {
				errs = append(errs, field.Invalid(end, *port.EndPort, "may not be specified when `port` is not specified"))
			}
		case port.Port.Type == intstr.Int:
			errs = append(errs, api.InvalidAll(at.Child("port"), port.Port.IntVal, validation.IsValidPortNum(int(port.Port.IntVal)))...)
			if port.EndPort != nil {
				if *port.EndPort < port.Port.IntVal {
					errs = append(errs, field.Invalid(end, *port.EndPort, "must be greater than or equal to `port`"))
				}
				errs = append(errs, api.InvalidAll(end, *port.EndPort, validation.IsValidPortNum(int(*port.EndPort)))...)
			}
		default:
			if port.EndPort != nil {
				errs = append(errs, field.Invalid(end, *port.EndPort, "may not be specified when `port` is non-numeric"))
			}
			errs = append(errs, api.InvalidAll(at.Child("port"), port.Port.StrVal, validation.IsValidPortName(port.Port.StrVal))...)
		}
	}
	return errs
}

func validatePeer(peer *networkingv1.NetworkPolicyPeer, before []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	selects := false
	if peer.PodSelector != nil {
		selects = true
		errs = append(errs, validateSelector(peer.PodSelector, path.Child("podSelector"))...)
	}
	if peer.NamespaceSelector != nil {
		selects = true
		errs = append(errs, validateSelector(peer.NamespaceSelector, path.Child("namespaceSelector"))...)
	}
	switch {
	case peer.IPBlock != nil && selects:
		errs = append(errs, field.Forbidden(path, "may not specify both ipBlock and another peer"))
	case peer.IPBlock == nil && !selects:
		errs = append(errs, field.Required(path, "must specify a peer"))
	}
	if peer.IPBlock != nil {
		errs = append(errs, validateIPBlock(peer.IPBlock, before, path.Child("ipBlock"))...)
	}
	return errs
}

func validateIPBlock(block *networkingv1.IPBlock, before []string, path *field.Path) field.ErrorList {
	if block.CIDR == "" {
		return field.ErrorList{field.Required(path.Child("cidr"), "")}
	}
	if errs := validation.IsValidCIDRForLegacyField(path.Child("cidr"), block.CIDR, true, before); len(errs) > 0 {
		return errs
	}
	whole, parsed := parseRange(block.CIDR)
	var errs field.ErrorList
	for i, except := range block.Except {
		at := path.Child("except").Index(i)
		if bad := validation.IsValidCIDRForLegacyField(at, except, true, before); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		if part, ok := parseRange(except); parsed && ok && !(whole.Contains(part.Addr()) && part.Bits() > whole.Bits()) {
			errs = append(errs, field.Invalid(at, except, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

func parseRange(cidr string) (netip.Prefix, bool) {
	r, err := netip.ParsePrefix(cidr)
	return r.Masked(), err == nil
}

func warnPolicy(_ context.Context, p, _ *networkingv1.NetworkPolicy) []string {
	var warnings []string
	eachPeer(&p.Spec, func(peer *networkingv1.NetworkPolicyPeer, path *field.Path) {
		if peer.IPBlock == nil {
			return
		}
		at := path.Child("ipBlock")
		warnings = append(warnings, validation.GetWarningsForCIDR(at.Child("cidr"), peer.IPBlock.CIDR)...)
		for i, except := range peer.IPBlock.Except {
			warnings = append(warnings, validation.GetWarningsForCIDR(at.Child("except").Index(i), except)...)
		}
	})
	return warnings
}
