package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What a resolver takes (KEP-2595).
const (
	maxDNSNameservers     = 3
	maxDNSSearchPaths     = 32
	maxDNSSearchListChars = 2048
)

func (v *podValidator) dnsConfig(path *field.Path) {
	config := v.spec.DNSConfig
	if v.spec.DNSPolicy == corev1.DNSNone {
		if config == nil {
			v.add(field.Required(path, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", corev1.DNSNone)))
		} else if len(config.Nameservers) == 0 {
			v.add(field.Required(path.Child("nameservers"),
				fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", corev1.DNSNone)))
		}
	}
	if config == nil {
		return
	}
	if len(config.Nameservers) > maxDNSNameservers {
		v.add(field.Invalid(path.Child("nameservers"), config.Nameservers,
			fmt.Sprintf("must not have more than %v nameservers", maxDNSNameservers)))
	}
	var known []string
	if v.Old != nil && v.Old.DNSConfig != nil {
		known = v.Old.DNSConfig.Nameservers
	}
	for i, ns := range config.Nameservers {
		v.addAll(validation.IsValidIPForLegacyField(path.Child("nameservers").Index(i), ns, true, known))
	}
	v.dnsSearches(config.Searches, path.Child("searches"))
	for i, option := range config.Options {
		if option.Name == "" {
			v.add(field.Required(path.Child("options").Index(i), "must not be empty"))
		}
	}
}

func (v *podValidator) dnsSearches(searches []string, path *field.Path) {
	if len(searches) > maxDNSSearchPaths {
		v.add(field.Invalid(path, searches, fmt.Sprintf("must not have more than %v search paths", maxDNSSearchPaths)))
	}
	if len(strings.Join(searches, " ")) > maxDNSSearchListChars {
		v.add(field.Invalid(path, searches,
			fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxDNSSearchListChars)))
	}
	for i, search := range searches {
		// A dot alone means no search path; a name may end with the dot of the root.
		if name := strings.TrimSuffix(search, "."); name != "" || search == "" {
			v.invalid(path.Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(name))
		}
	}
}

func (v *podValidator) hostAliases(path *field.Path) {
	var known []string
	if v.Old != nil {
		for _, alias := range v.Old.HostAliases {
			known = append(known, alias.IP)
		}
	}
	for i, alias := range v.spec.HostAliases {
		at := path.Index(i)
		v.addAll(validation.IsValidIPForLegacyField(at.Child("ip"), alias.IP, true, known))
		for j, name := range alias.Hostnames {
			v.invalid(at.Child("hostnames").Index(j), name, validation.IsDNS1123Subdomain(name))
		}
	}
}

// hostUsers: a user namespace of the pod's own can't be mixed with other namespaces of the host (KEP-127).
func (v *podValidator) hostUsers(path *field.Path) {
	spec := v.spec
	if spec.HostUsers == nil || *spec.HostUsers {
		return
	}
	const detail = "when `pod.Spec.HostUsers` is false"
	if spec.HostNetwork {
		v.add(field.Forbidden(path.Child("hostNetwork"), detail))
	}
	if spec.HostPID {
		v.add(field.Forbidden(path.Child("HostPID"), detail))
	}
	if spec.HostIPC {
		v.add(field.Forbidden(path.Child("HostIPC"), detail))
	}
	devices := func(containers []corev1.Container, name string) {
		for i := range containers {
			if len(containers[i].VolumeDevices) > 0 {
				v.add(field.Forbidden(path.Child(name).Index(i).Child("volumeDevices"), detail))
			}
		}
	}
	devices(spec.Containers, "containers")
	devices(spec.InitContainers, "initContainers")
}

// windowsHostProcess: containers that run as processes of a Windows host do so all together, on the host's network.
func (v *podValidator) windowsHostProcess(path *field.Path) {
	spec := v.spec
	var pod *bool
	if spec.SecurityContext != nil && spec.SecurityContext.WindowsOptions != nil {
		pod = spec.SecurityContext.WindowsOptions.HostProcess
	}
	host, total := 0, 0
	each := func(c *corev1.Container, at *field.Path) {
		total++
		effective := pod
		if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil && c.SecurityContext.WindowsOptions.HostProcess != nil {
			effective = c.SecurityContext.WindowsOptions.HostProcess
			if pod != nil && *pod != *effective {
				v.add(field.Invalid(at.Child("securityContext", "windowsOptions", "hostProcess"), *effective,
					fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *pod)))
			}
		}
		if effective != nil && *effective {
			host++
		}
	}
	for i := range spec.Containers {
		each(&spec.Containers[i], path.Child("containers").Index(i))
	}
	for i := range spec.InitContainers {
		each(&spec.InitContainers[i], path.Child("initContainers").Index(i))
	}
	if host == 0 {
		return
	}
	if host != total {
		v.add(field.Invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !spec.HostNetwork {
		v.add(field.Invalid(path.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
}

// os checks spec.os and that nothing is set that the operating system doesn't have.
func (v *podValidator) os(path *field.Path) {
	o := v.spec.OS
	if o == nil {
		return
	}
	switch o.Name {
	case "":
		v.add(field.Required(path.Child("os", "name"), "cannot be empty"))
	case corev1.Linux:
		v.linux(path)
	case corev1.Windows:
		v.windows(path)
	default:
		v.add(field.NotSupported(path.Child("os"), o.Name, []corev1.OSName{corev1.Linux, corev1.Windows}))
	}
}

func (v *podValidator) linux(path *field.Path) {
	const detail = "windows options cannot be set for a linux pod"
	if sc := v.spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		v.add(field.Forbidden(path.Child("securityContext", "windowsOptions"), detail))
	}
	v.eachContainer(path, func(c *corev1.Container, list *field.Path, i int) {
		if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil {
			v.add(field.Forbidden(list.Index(i).Child("securityContext", "windowsOptions"), detail))
		}
	})
}

// eachContainer calls f with every container; its path is list.Index(i), for those who have something to say of it.
func (v *podValidator) eachContainer(path *field.Path, f func(c *corev1.Container, list *field.Path, i int)) {
	list := path.Child("containers")
	for i := range v.spec.Containers {
		f(&v.spec.Containers[i], list, i)
	}
	for i := range v.spec.InitContainers {
		f(&v.spec.InitContainers[i], path.Child("initContainers"), i)
	}
	for i := range v.spec.EphemeralContainers {
		f((*corev1.Container)(&v.spec.EphemeralContainers[i].EphemeralContainerCommon), path.Child("ephemeralContainers"), i)
	}
}

func (v *podValidator) windows(path *field.Path) {
	spec := v.spec
	forbid := func(at *field.Path, set bool, names ...string) {
		if set {
			v.add(field.Forbidden(at.Child(names[0], names[1:]...), "cannot be set for a windows pod"))
		}
	}
	forbid(path, spec.HostPID, "hostPID")
	forbid(path, spec.HostIPC, "hostIPC")
	forbid(path, spec.HostUsers != nil, "hostUsers")
	forbid(path, spec.Resources != nil, "resources")
	forbid(path, spec.ShareProcessNamespace != nil, "shareProcessNamespace")
	if sc := spec.SecurityContext; sc != nil {
		at := path.Child("securityContext")
		forbid(at, sc.AppArmorProfile != nil, "appArmorProfile")
		forbid(at, sc.SELinuxOptions != nil, "seLinuxOptions")
		forbid(at, sc.SeccompProfile != nil, "seccompProfile")
		forbid(at, sc.FSGroup != nil, "fsGroup")
		forbid(at, sc.FSGroupChangePolicy != nil, "fsGroupChangePolicy")
		forbid(at, len(sc.Sysctls) > 0, "sysctls")
		forbid(at, sc.RunAsUser != nil, "runAsUser")
		forbid(at, sc.RunAsGroup != nil, "runAsGroup")
		forbid(at, sc.SupplementalGroups != nil, "supplementalGroups")
		forbid(at, sc.SupplementalGroupsPolicy != nil, "supplementalGroupsPolicy")
		forbid(at, sc.SELinuxChangePolicy != nil, "seLinuxChangePolicy")
	}
	v.eachContainer(path, func(c *corev1.Container, list *field.Path, i int) {
		sc := c.SecurityContext
		if sc == nil {
			return
		}
		at := list.Index(i).Child("securityContext")
		forbid(at, sc.AppArmorProfile != nil, "appArmorProfile")
		forbid(at, sc.SELinuxOptions != nil, "seLinuxOptions")
		forbid(at, sc.SeccompProfile != nil, "seccompProfile")
		forbid(at, sc.Capabilities != nil, "capabilities")
		forbid(at, sc.ReadOnlyRootFilesystem != nil, "readOnlyRootFilesystem")
		forbid(at, sc.Privileged != nil, "privileged")
		forbid(at, sc.AllowPrivilegeEscalation != nil, "allowPrivilegeEscalation")
		forbid(at, sc.ProcMount != nil, "procMount")
		forbid(at, sc.RunAsUser != nil, "runAsUser")
		forbid(at, sc.RunAsGroup != nil, "runAsGroup")
	})
}

// hasBackstep says that a path goes up at some place.
func hasBackstep(path string) bool {
	return slices.Contains(strings.Split(path, "/"), "..")
}
