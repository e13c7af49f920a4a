package core

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// preparePodStatus keeps all but the status, and of it what was decided at creation.
func preparePodStatus(_ context.Context, pod, old *corev1.Pod) {
	pod.Spec = old.Spec
	pod.Generation = old.Generation
	pod.DeletionTimestamp = old.DeletionTimestamp
	pod.DeletionGracePeriodSeconds = old.DeletionGracePeriodSeconds
	pod.OwnerReferences = old.OwnerReferences
	if pod.Status.QOSClass == "" {
		pod.Status.QOSClass = old.Status.QOSClass
	}
	// A writer that doesn't know the field doesn't mean to take it back.
	if pod.Status.ObservedGeneration == 0 {
		pod.Status.ObservedGeneration = old.Status.ObservedGeneration
	}
}

func validatePodStatus(_ context.Context, pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("status")
	v := &podValidator{}
	v.addAll(validatePodAnnotationsUpdate(pod, old))
	if name := pod.Status.NominatedNodeName; name != "" && name != old.Status.NominatedNodeName {
		v.invalid(path.Child("nominatedNodeName"), name, apivalidation.NameIsDNSSubdomain(name, false))
	}
	for i, condition := range pod.Status.Conditions {
		v.invalid(path.Child("conditions").Index(i).Child("type"), condition.Type, validation.IsQualifiedName(string(condition.Type)))
	}
	if old.Status.QOSClass != "" {
		v.addAll(apivalidation.ValidateImmutableField(pod.Status.QOSClass, old.Status.QOSClass, path.Child("qosClass")))
	}
	if pod.Status.ObservedGeneration < 0 {
		v.addAll(apivalidation.ValidateNonnegativeField(pod.Status.ObservedGeneration, path.Child("observedGeneration")))
	}
	v.terminatedStays(pod.Status.ContainerStatuses, old.Status.ContainerStatuses, path.Child("containerStatuses"), regularRestarts(&old.Spec))
	v.terminatedStays(pod.Status.InitContainerStatuses, old.Status.InitContainerStatuses, path.Child("initContainerStatuses"), initRestarts(&old.Spec))
	v.terminatedStays(pod.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses,
		path.Child("ephemeralContainerStatuses"), func(*corev1.ContainerStatus) bool { return false })
	v.claimStatuses(pod, path.Child("resourceClaimStatuses"))
	v.containerStatuses(pod, path)
	v.podIPs(pod, old, path)
	v.hostIPs(pod, old, path)
	return v.errs
}

// regularRestarts says for a container that has terminated whether it may run again.
func regularRestarts(spec *corev1.PodSpec) func(*corev1.ContainerStatus) bool {
	return func(s *corev1.ContainerStatus) bool { return mayRestart(spec, spec.Containers, s, spec.RestartPolicy) }
}

func initRestarts(spec *corev1.PodSpec) func(*corev1.ContainerStatus) bool {
	// An init container that failed is tried again unless the pod is never to be; one that succeeded is done.
	policy := spec.RestartPolicy
	if policy == corev1.RestartPolicyAlways {
		policy = corev1.RestartPolicyOnFailure
	}
	return func(s *corev1.ContainerStatus) bool { return mayRestart(spec, spec.InitContainers, s, policy) }
}

func mayRestart(spec *corev1.PodSpec, containers []corev1.Container, s *corev1.ContainerStatus, policy corev1.RestartPolicy) bool {
	if spec.RestartPolicy == corev1.RestartPolicyAlways || restartsAll(spec) {
		return true
	}
	for i := range containers {
		c := &containers[i]
		if c.Name != s.Name {
			continue
		}
		if len(c.RestartPolicyRules) > 0 {
			return true // a rule may say so
		}
		if c.RestartPolicy != nil {
			policy = corev1.RestartPolicy(*c.RestartPolicy)
		}
	}
	return policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && s.State.Terminated.ExitCode != 0
}

// restartsAll says whether a rule of any container may restart all of them.
func restartsAll(spec *corev1.PodSpec) bool {
	for c := range Containers(spec) {
		for i := range c.RestartPolicyRules {
			if c.RestartPolicyRules[i].Action == corev1.ContainerRestartRuleActionRestartAllContainers {
				return true
			}
		}
	}
	return false
}

// terminatedStays: a container that has ended and is not to be restarted can't be running again.
func (v *podValidator) terminatedStays(next, old []corev1.ContainerStatus, path *field.Path, restarts func(*corev1.ContainerStatus) bool) {
	for i := range old {
		was := &old[i]
		if was.State.Terminated == nil || restarts(was) {
			continue
		}
		for j := range next {
			if next[j].Name == was.Name && next[j].State.Terminated == nil {
				v.add(field.Forbidden(path.Index(j).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
}

func (v *podValidator) claimStatuses(pod *corev1.Pod, path *field.Path) {
	for i := range pod.Status.ResourceClaimStatuses {
		s, at := &pod.Status.ResourceClaimStatuses[i], path.Index(i)
		known := slices.ContainsFunc(pod.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool { return c.Name == s.Name })
		if !known {
			v.add(field.Invalid(at.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		if slices.ContainsFunc(pod.Status.ResourceClaimStatuses[:i], func(o corev1.PodResourceClaimStatus) bool { return o.Name == s.Name }) {
			v.add(field.Duplicate(at.Child("name"), s.Name))
		}
		if s.ResourceClaimName != nil {
			v.invalid(at.Child("name"), *s.ResourceClaimName, validation.IsDNS1123Subdomain(*s.ResourceClaimName))
		}
	}
}

// containerStatuses checks who the processes of containers are, and the health of the devices that they were given.
func (v *podValidator) containerStatuses(pod *corev1.Pod, path *field.Path) {
	windows := pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows
	users := func(list []corev1.ContainerStatus, at *field.Path) {
		for i := range list {
			if u := list[i].User; u != nil && u.Linux != nil {
				v.linuxUser(u.Linux, windows, at.Index(i).Child("linux"))
			}
		}
	}
	status := &pod.Status
	users(status.ContainerStatuses, path.Child("containerStatuses"))
	users(status.InitContainerStatuses, path.Child("initContainerStatuses"))
	users(status.EphemeralContainerStatuses, path.Child("ephemeralContainerStatuses"))
	v.deviceHealth(status.ContainerStatuses, pod.Spec.Containers, path.Child("containerStatuses"))
	v.deviceHealth(status.InitContainerStatuses, pod.Spec.InitContainers, path.Child("initContainerStatuses"))
	for i := range status.EphemeralContainerStatuses {
		if len(status.EphemeralContainerStatuses[i].AllocatedResourcesStatus) > 0 {
			v.add(field.Forbidden(path.Child("ephemeralContainerStatuses").Index(i).Child("allocatedResourcesStatus"),
				"must not be specified in container status"))
		}
	}
}

func (v *podValidator) linuxUser(u *corev1.LinuxContainerUser, windows bool, at *field.Path) {
	if windows {
		v.add(field.Forbidden(at, "cannot be set for a windows pod"))
		return
	}
	v.invalid(at.Child("uid"), u.UID, validation.IsValidUserID(u.UID))
	v.invalid(at.Child("gid"), u.GID, validation.IsValidGroupID(u.GID))
	for i, gid := range u.SupplementalGroups {
		v.invalid(at.Child("supplementalGroups").Index(i), gid, validation.IsValidGroupID(gid))
	}
}

// deviceHealth: only what a container requests can have a health (KEP-4680).
func (v *podValidator) deviceHealth(list []corev1.ContainerStatus, containers []corev1.Container, path *field.Path) {
	for i := range list {
		c := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == list[i].Name })
		for j := range list[i].AllocatedResourcesStatus {
			r, at := &list[i].AllocatedResourcesStatus[j], path.Index(i).Child("allocatedResourcesStatus").Index(j)
			if c >= 0 {
				v.requested(r.Name, &containers[c].Resources, at.Child("name"))
			}
			for k := range r.Resources {
				d, at := &r.Resources[k], at.Child("resources").Index(k)
				optionalEnum(v, at.Child("health"), d.Health,
					corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)
				if slices.ContainsFunc(r.Resources[:k], func(o corev1.ResourceHealth) bool { return o.ResourceID == d.ResourceID }) {
					v.add(field.Duplicate(at.Child("resourceID"), d.ResourceID))
				}
			}
		}
	}
}

func (v *podValidator) requested(name corev1.ResourceName, r *corev1.ResourceRequirements, at *field.Path) {
	claim, isClaim := strings.CutPrefix(string(name), "claim:")
	if !isClaim {
		if _, ok := r.Requests[name]; !ok {
			v.add(field.Invalid(at, name, "must match one of the container's resource requests"))
		}
		return
	}
	known := slices.ContainsFunc(r.Claims, func(c corev1.ResourceClaim) bool {
		return claim == c.Name && c.Request == "" || claim == c.Name+"/"+c.Request && c.Request != ""
	})
	if !known {
		v.add(field.Invalid(at, name, "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' "+
			"or 'claim:<claimName>' if request is empty"))
	}
}

func (v *podValidator) podIPs(pod, old *corev1.Pod, path *field.Path) {
	known := make([]string, 0, len(old.Status.PodIPs))
	for _, ip := range old.Status.PodIPs {
		known = append(known, ip.IP)
	}
	ips := make([]string, 0, len(pod.Status.PodIPs))
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	v.addresses(ips, known, path.Child("podIPs"), pod.Status.PodIPs)
}

func (v *podValidator) hostIPs(pod, old *corev1.Pod, path *field.Path) {
	known := []string{old.Status.HostIP}
	for _, ip := range old.Status.HostIPs {
		known = append(known, ip.IP)
	}
	if pod.Status.HostIP != "" {
		v.addAll(validation.IsValidIPForLegacyField(path.Child("hostIP"), pod.Status.HostIP, true, known))
	}
	ips := make([]string, 0, len(pod.Status.HostIPs))
	for _, ip := range pod.Status.HostIPs {
		ips = append(ips, ip.IP)
	}
	if len(ips) > 0 && ips[0] != pod.Status.HostIP {
		v.add(field.Invalid(path.Child("hostIPs").Index(0).Child("ip"), ips[0], "must be equal to `hostIP`"))
	}
	v.addresses(ips, known, path.Child("hostIPs"), pod.Status.HostIPs)
}

// addresses: at most one of each IP family.
func (v *podValidator) addresses(ips, known []string, path *field.Path, value any) {
	for i, ip := range ips {
		v.addAll(validation.IsValidIPForLegacyField(path.Index(i), ip, true, known))
		if slices.Contains(ips[:i], ip) {
			v.add(field.Duplicate(path.Index(i), ip))
		}
	}
	if len(ips) < 2 {
		return
	}
	first, _ := netip.ParseAddr(ips[0])
	second, _ := netip.ParseAddr(ips[1])
	if len(ips) > 2 || first.Is4() == second.Is4() {
		v.add(field.Invalid(path, value, "may specify no more than one IP for each IP family"))
	}
}
