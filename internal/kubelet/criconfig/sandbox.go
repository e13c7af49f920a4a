package criconfig

import (
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandbox gives the configuration of a pod's sandbox.
func (n *Node) Sandbox(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := n.DNS(pod)
	if err != nil {
		return nil, err
	}
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt,
		},
		LogDirectory: LogDirectory(n.LogDir, pod.Namespace, pod.Name, pod.UID),
		DnsConfig:    dns,
		Labels:       podLabels(pod),
		Annotations:  maps.Clone(pod.Annotations),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: CgroupParent(n.CgroupRoot, pod),
			Sysctls:      map[string]string{},
			Overhead:     listResources(pod.Spec.Overhead, pod.Spec.Overhead),
			Resources: listResources(
				resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true}),
				resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true})),
			SecurityContext: n.sandboxSecurity(pod),
		},
	}
	for k, v := range pod.Labels {
		if _, reserved := config.Labels[k]; !reserved {
			config.Labels[k] = v
		}
	}
	if !pod.Spec.HostNetwork {
		if config.Hostname, _, err = n.Hostname(pod); err != nil {
			return nil, err
		}
		if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN {
			host, domain, _ := n.Hostname(pod)
			if domain != "" {
				host += "." + domain
			}
			if len(host) > 64 {
				return nil, fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (64 characters is the max, %d characters requested)", host, len(host))
			}
			config.Hostname = host
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			config.PortMappings = append(config.PortMappings, portMappings(&list[i])...)
		}
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			config.Linux.Sysctls[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
		}
	}
	return config, nil
}

func portMappings(c *corev1.Container) []*runtimeapi.PortMapping {
	var list []*runtimeapi.PortMapping
	for i := range c.Ports {
		p := &c.Ports[i]
		list = append(list, &runtimeapi.PortMapping{
			Protocol:      runtimeapi.Protocol(runtimeapi.Protocol_value[string(p.Protocol)]),
			ContainerPort: p.ContainerPort,
			HostPort:      p.HostPort,
			HostIp:        p.HostIP,
		})
	}
	return list
}

func listResources(requests, limits corev1.ResourceList) *runtimeapi.LinuxContainerResources {
	r := &runtimeapi.LinuxContainerResources{
		CpuPeriod:          Period,
		CpuQuota:           Quota(limits.Cpu().MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	if _, ok := requests[corev1.ResourceCPU]; ok {
		r.CpuShares = Shares(requests.Cpu().MilliValue())
	}
	return r
}

func (n *Node) sandboxSecurity(pod *corev1.Pod) *runtimeapi.LinuxSandboxSecurityContext {
	out := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions:   namespaces(pod),
		SupplementalGroups: supplementalGroups(pod),
		Seccomp:            &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	if n.SandboxSeccompProfile != "" {
		out.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: n.SandboxSeccompProfile}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if sc := list[i].SecurityContext; sc != nil && sc.Privileged != nil && *sc.Privileged {
				out.Privileged = true
				out.Seccomp = nil
			}
		}
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		out.RunAsUser, out.RunAsGroup = int64Value(sc.RunAsUser), int64Value(sc.RunAsGroup)
		if out.RunAsUser == nil {
			out.RunAsGroup = nil // a group alone is refused by runtimes for the sandbox
		}
		out.SelinuxOptions = selinux(sc.SELinuxOptions)
		out.SupplementalGroupsPolicy = groupsPolicy(sc)
	}
	return out
}

// Hostname gives the host name of a pod and its domain, which is empty without a subdomain.
func (n *Node) Hostname(pod *corev1.Pod) (host, domain string, err error) {
	if o := pod.Spec.HostnameOverride; o != nil && *o != "" {
		return *o, "", nil
	}
	host = pod.Name
	if pod.Spec.Hostname != "" {
		host = pod.Spec.Hostname
	}
	if len(host) > 63 {
		host = strings.TrimRight(host[:63], "-.")
	}
	if host == "" {
		return "", "", fmt.Errorf("the name %q gives no host name", pod.Name)
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, n.ClusterDomain)
	}
	return host, domain, nil
}

// Hosts is the content of /etc/hosts of a pod. host is that of the node, for pods on its network.
func (n *Node) Hosts(pod *corev1.Pod, podIPs []string, host []byte) ([]byte, error) {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(host)
	} else {
		name, domain, err := n.Hostname(pod)
		if err != nil {
			return nil, err
		}
		b.WriteString("# Kubernetes-managed hosts file.\n")
		b.WriteString("127.0.0.1\tlocalhost\n")
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
		b.WriteString("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range podIPs {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, name, domain, name)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, name)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return []byte(b.String()), nil
}
