package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

type quantity = resource.Quantity

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// isNative tells the resources that Kubernetes itself knows from extended ones, which are named by a domain.
func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// IsExtendedResource says that a resource is one of a device plugin or driver, counted in whole units and never overcommitted.
func IsExtendedResource(name corev1.ResourceName) bool {
	if isNative(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	// A quota names it with this prefix.
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// isOvercommitable says that a container may use more of the resource than it requests.
func isOvercommitable(name corev1.ResourceName) bool {
	return isNative(name) && !isHugePages(name)
}

func isContainerResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return true
	}
	return isHugePages(name)
}

// sortedNames gives the resources of a list in order, so that errors come in the same order every time.
func sortedNames(list corev1.ResourceList) []corev1.ResourceName {
	if len(list) == 0 {
		return nil
	}
	names := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func containerResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if isContainerResource(name) && !isHugePages(name) {
		return nil
	}
	var errs field.ErrorList
	for _, message := range validation.IsQualifiedName(string(name)) {
		errs = append(errs, field.Invalid(path, name, message))
	}
	switch {
	case len(errs) > 0:
	case !strings.Contains(string(name), "/"):
		if !isStandardResource(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource type or fully qualified"))
		}
		if !isContainerResource(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource for containers"))
		}
	case !isNative(name) && !IsExtendedResource(name):
		errs = append(errs, field.Invalid(path, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

// isStandardResource says that a name without a domain is one that nodes, containers or quotas know.
func isStandardResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceStorage:
		return true
	}
	return isHugePages(name) || isStandardQuotaResource(name)
}

// resourceQuantity checks an amount of a resource: never negative, and whole where it is counted.
func resourceQuantity(name corev1.ResourceName, q quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if q.Sign() < 0 {
		errs = append(errs, field.Invalid(path, q.String(), "must be greater than or equal to 0"))
	}
	if (isCountedResource(name) || IsExtendedResource(name)) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(path, q.String(), "must be an integer"))
	}
	if isHugePages(name) && !wholePages(name, q) {
		errs = append(errs, field.Invalid(path, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name)))
	}
	return errs
}

// wholePages: memory in huge pages comes in multiples of the page size, which is in the resource's name.
func wholePages(name corev1.ResourceName, q quantity) bool {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || size.MilliValue()%1000 != 0 {
		return false
	}
	return q.Value()%size.Value() == 0
}

// resourceRequirements checks requests and limits, and their relation. pod says that they are those of the whole pod.
func (v *podValidator) resourceRequirements(r *corev1.ResourceRequirements, path *field.Path, pod bool) {
	if len(r.Limits)+len(r.Requests) == 0 {
		return
	}
	var base, hugePages bool
	check := func(name corev1.ResourceName, q quantity, at *field.Path) {
		if pod && !resourcehelper.IsSupportedPodLevelResource(name) {
			v.add(field.NotSupported(at, name, sets.List(resourcehelper.SupportedPodLevelResources())))
		} else {
			v.addAll(containerResourceName(name, at))
		}
		v.addAll(resourceQuantity(name, q, at))
		base = base || name == corev1.ResourceCPU || name == corev1.ResourceMemory
		hugePages = hugePages || isHugePages(name)
	}
	limits, requests := path.Child("limits"), path.Child("requests")
	for _, name := range sortedNames(r.Limits) {
		check(name, r.Limits[name], limits.Key(string(name)))
	}
	for _, name := range sortedNames(r.Requests) {
		request := r.Requests[name]
		check(name, request, requests.Key(string(name)))
		limit, ok := r.Limits[name]
		switch {
		case !ok && !isOvercommitable(name):
			v.add(field.Required(limits, "Limit must be set for non overcommitable resources"))
		case !ok:
		case !isOvercommitable(name) && request.Cmp(limit) != 0:
			v.add(field.Invalid(requests, request.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String())))
		case request.Cmp(limit) > 0:
			v.add(field.Invalid(requests, request.String(),
				fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String())))
		}
	}
	if hugePages && !base {
		v.add(field.Forbidden(path, "HugePages require cpu or memory"))
	}
}

func (v *podValidator) containerResources(r *corev1.ResourceRequirements, path *field.Path) {
	v.resourceRequirements(r, path, false)
	if len(r.Claims) > 0 {
		v.claimNames(r.Claims, path.Child("claims"))
	}
}

// claimNames checks what a container uses of the pod's resource claims: a whole claim or single requests of it, once.
func (v *podValidator) claimNames(claims []corev1.ResourceClaim, path *field.Path) {
	seen := sets.Set[string]{}
	for i, claim := range claims {
		at := path.Index(i)
		if claim.Name == "" {
			v.add(field.Required(at, ""))
			continue
		}
		key := claim.Name
		if claim.Request != "" {
			v.invalid(at.Child("request"), claim.Request, validation.IsDNS1123Label(claim.Request))
			key += "/" + claim.Request
		}
		switch {
		case seen.Has(claim.Name):
			v.add(field.Duplicate(at, claim.Name))
		case seen.Has(key):
			v.add(field.Duplicate(at, key))
		case claim.Request == "" && hasRequestOf(seen, claim.Name):
			v.add(field.Duplicate(at, claim.Name))
		}
		seen.Insert(key)
		if !v.claims.Has(claim.Name) {
			err := field.NotFound(at, claim.Name)
			err.Detail = "must be one of the names in pod.spec.resourceClaims"
			if len(v.claims) == 0 {
				err.Detail += " which is empty"
			} else {
				err.Detail += ": " + strings.Join(sets.List(v.claims), ", ")
			}
			v.add(err)
		}
	}
}

// hasRequestOf says whether a request of the claim is among what is used already.
func hasRequestOf(seen sets.Set[string], claim string) bool {
	for key := range seen {
		if strings.HasPrefix(key, claim+"/") {
			return true
		}
	}
	return false
}

// podResources checks spec.resources (KEP-2837): the pod requests at least what its containers do together, and none of them
// may have a limit above the pod's.
func (v *podValidator) podResources(spec *field.Path) {
	r := v.spec.Resources
	if r == nil {
		return
	}
	path := spec.Child("resources")
	if len(r.Claims) > 0 {
		v.add(field.Forbidden(path.Child("claims"), "claims cannot be set for Resources at pod-level"))
	}
	v.resourceRequirements(r, path, true)
	containers := &corev1.Pod{Spec: corev1.PodSpec{Containers: v.spec.Containers, InitContainers: v.spec.InitContainers}}
	sum := resourcehelper.AggregateContainerRequests(containers, resourcehelper.PodResourcesOptions{})
	for _, name := range sortedNames(sum) {
		request, ok := r.Requests[name]
		if total := sum[name]; ok && total.Cmp(request) > 0 {
			v.add(field.Invalid(path.Child("requests").Key(string(name)), request.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", total.String())))
		}
	}
	v.limitsWithin(r.Limits, v.spec.Containers, spec.Child("containers"))
	v.limitsWithin(r.Limits, v.spec.InitContainers, spec.Child("initContainers"))
}

func (v *podValidator) limitsWithin(pod corev1.ResourceList, containers []corev1.Container, path *field.Path) {
	for i := range containers {
		limits := containers[i].Resources.Limits
		for _, name := range sortedNames(limits) {
			limit := limits[name]
			if whole, ok := pod[name]; ok && limit.Cmp(whole) > 0 {
				v.add(field.Invalid(path.Index(i).Child("resources", "limits").Key(string(name)), limit.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", whole.String())))
			}
		}
	}
}

func (v *podValidator) overhead(path *field.Path) {
	for _, name := range sortedNames(v.spec.Overhead) {
		at := path.Child("limits").Key(string(name))
		v.addAll(containerResourceName(name, at))
		v.addAll(resourceQuantity(name, v.spec.Overhead[name], at))
	}
}

// resourceClaims checks spec.resourceClaims (KEP-4381).
func (v *podValidator) resourceClaims(path *field.Path) {
	v.claims = sets.Set[string]{}
	for i := range v.spec.ResourceClaims {
		claim, at := &v.spec.ResourceClaims[i], path.Index(i)
		switch {
		case claim.Name == "":
			v.add(field.Required(at.Child("name"), ""))
		case v.claims.Has(claim.Name):
			v.add(field.Duplicate(at.Child("name"), claim.Name))
		default:
			v.invalid(at.Child("name"), claim.Name, validation.IsDNS1123Label(claim.Name))
			v.claims.Insert(claim.Name)
		}
		byName, byTemplate := claim.ResourceClaimName, claim.ResourceClaimTemplateName
		switch {
		case byName != nil && byTemplate != nil:
			v.add(field.Invalid(at, claim.Name,
				"at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		case byName == nil && byTemplate == nil:
			v.add(field.Invalid(at, claim.Name, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
		if byName != nil {
			v.invalid(at.Child("resourceClaimName"), *byName, validation.IsDNS1123Subdomain(*byName))
		}
		if byTemplate != nil {
			v.invalid(at.Child("resourceClaimTemplateName"), *byTemplate, validation.IsDNS1123Subdomain(*byTemplate))
		}
	}
}
