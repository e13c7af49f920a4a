package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxRestartRules  = 20
	maxRuleExitCodes = 255

	forbiddenInInit      = "may not be set for init containers without restartPolicy=Always"
	forbiddenInEphemeral = "cannot be set for an Ephemeral Container"
)

func restartsAlways(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func (v *podValidator) containers(path *field.Path) {
	containers := v.spec.Containers
	if len(containers) == 0 {
		v.add(field.Required(path, ""))
		return
	}
	names := make(sets.Set[string], len(containers))
	for i := range containers {
		c, at := &containers[i], path.Index(i)
		v.container(c, at)
		v.uniqueName(names, c.Name, at)
		v.longRunning(c, at)
	}
	v.hostPortConflicts(containers, path)
}

// initContainers: an init container with restartPolicy Always is a sidecar and may have what a container may have.
func (v *podValidator) initContainers(path *field.Path) {
	containers := v.spec.InitContainers
	if len(containers) == 0 {
		return
	}
	names := sets.Set[string]{}
	for i := range v.spec.Containers {
		names.Insert(v.spec.Containers[i].Name)
	}
	for i := range containers {
		c, at := &containers[i], path.Index(i)
		v.container(c, at)
		v.uniqueName(names, c.Name, at)
		// Init containers run one after the other: their ports can clash within one only.
		v.hostPortConflicts(containers[i:i+1], path)
		if restartsAlways(c) {
			v.longRunning(c, at)
			continue
		}
		forbid := func(set bool, name string) {
			if set {
				v.add(field.Forbidden(at.Child(name), forbiddenInInit))
			}
		}
		forbid(c.Lifecycle != nil, "lifecycle")
		forbid(c.LivenessProbe != nil, "livenessProbe")
		forbid(c.ReadinessProbe != nil, "readinessProbe")
		forbid(c.StartupProbe != nil, "startupProbe")
		if len(c.ResizePolicy) > 0 {
			v.add(field.Invalid(at.Child("resizePolicy"), c.ResizePolicy, "must not be set for init containers"))
		}
	}
}

// ephemeralContainers may have what serves debugging: no ports, probes, resources or lifecycle.
func (v *podValidator) ephemeralContainers(path *field.Path) {
	if len(v.spec.EphemeralContainers) == 0 {
		return
	}
	names, regular := sets.Set[string]{}, sets.Set[string]{}
	for i := range v.spec.Containers {
		regular.Insert(v.spec.Containers[i].Name)
	}
	for i := range v.spec.InitContainers {
		names.Insert(v.spec.InitContainers[i].Name)
	}
	names = names.Union(regular)
	for i := range v.spec.EphemeralContainers {
		ephemeral, at := &v.spec.EphemeralContainers[i], path.Index(i)
		c := (*corev1.Container)(&ephemeral.EphemeralContainerCommon)
		v.container(c, at)
		v.uniqueName(names, c.Name, at)
		if target := ephemeral.TargetContainerName; target != "" && !regular.Has(target) && !v.hasInitContainer(target) {
			v.add(field.NotFound(at.Child("targetContainerName"), target))
		}
		v.ephemeralFields(c, at)
	}
}

func (v *podValidator) hasInitContainer(name string) bool {
	for i := range v.spec.InitContainers {
		if v.spec.InitContainers[i].Name == name {
			return true
		}
	}
	return false
}

func (v *podValidator) ephemeralFields(c *corev1.Container, at *field.Path) {
	forbid := func(set bool, names ...string) {
		if set {
			v.add(field.Forbidden(at.Child(names[0], names[1:]...), forbiddenInEphemeral))
		}
	}
	forbid(len(c.Ports) > 0, "ports")
	forbid(len(c.Resources.Limits)+len(c.Resources.Requests)+len(c.Resources.Claims) > 0, "resources")
	forbid(len(c.ResizePolicy) > 0, "resizePolicy")
	forbid(c.RestartPolicy != nil, "restartPolicy")
	forbid(len(c.RestartPolicyRules) > 0, "restartPolicyRules")
	forbid(c.LivenessProbe != nil, "livenessProbe")
	forbid(c.ReadinessProbe != nil, "readinessProbe")
	forbid(c.StartupProbe != nil, "startupProbe")
	forbid(c.Lifecycle != nil, "lifecycle")
	for i := range c.VolumeMounts {
		mount := at.Child("volumeMounts").Index(i)
		if c.VolumeMounts[i].SubPath != "" {
			v.add(field.Forbidden(mount.Child("subPath"), forbiddenInEphemeral))
		}
		if c.VolumeMounts[i].SubPathExpr != "" {
			v.add(field.Forbidden(mount.Child("subPathExpr"), forbiddenInEphemeral))
		}
	}
}

func (v *podValidator) uniqueName(names sets.Set[string], name string, at *field.Path) {
	if name == "" {
		return
	}
	if names.Has(name) {
		v.add(field.Duplicate(at.Child("name"), name))
	}
	names.Insert(name)
}

// container checks what every kind of container has.
func (v *podValidator) container(c *corev1.Container, at *field.Path) {
	if c.Name == "" {
		v.add(field.Required(at.Child("name"), ""))
	} else if messages := validation.IsDNS1123Label(c.Name); len(messages) > 0 {
		v.invalid(at.Child("name"), c.Name, messages)
	}
	switch {
	case c.Image == "":
		v.add(field.Required(at.Child("image"), ""))
	case v.Pod && strings.TrimSpace(c.Image) != c.Image:
		// Templates with such an image have always been accepted.
		v.add(field.Invalid(at.Child("image"), c.Image, "must not have leading or trailing whitespace"))
	}
	enum(v, at.Child("terminationMessagePolicy"), c.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	if len(c.Ports) > 0 {
		v.ports(c.Ports, at.Child("ports"))
	}
	if len(c.Env) > 0 {
		v.env(c.Env, at.Child("env"))
	}
	if len(c.EnvFrom) > 0 {
		v.envFrom(c.EnvFrom, at.Child("envFrom"))
	}
	if len(c.VolumeMounts) > 0 {
		v.volumeMounts(c, at.Child("volumeMounts"))
	}
	if len(c.VolumeDevices) > 0 {
		v.volumeDevices(c, at.Child("volumeDevices"))
	}
	enum(v, at.Child("imagePullPolicy"), c.ImagePullPolicy,
		corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	v.containerResources(&c.Resources, at.Child("resources"))
	if len(c.ResizePolicy) > 0 {
		v.resizePolicy(c, at.Child("resizePolicy"))
	}
	v.restartRules(c, at)
	if c.SecurityContext != nil {
		v.containerSecurityContext(c.SecurityContext, at.Child("securityContext"))
	}
}

// longRunning checks what only containers have that run beside others.
func (v *podValidator) longRunning(c *corev1.Container, at *field.Path) {
	if c.Lifecycle != nil {
		v.lifecycle(c.Lifecycle, at.Child("lifecycle"))
	}
	if c.LivenessProbe != nil {
		v.livenessProbe(c.LivenessProbe, at.Child("livenessProbe"))
	}
	if c.ReadinessProbe != nil {
		v.readinessProbe(c.ReadinessProbe, at.Child("readinessProbe"))
	}
	if c.StartupProbe != nil {
		v.livenessProbe(c.StartupProbe, at.Child("startupProbe"))
	}
}

func (v *podValidator) resizePolicy(c *corev1.Container, path *field.Path) {
	seen := sets.Set[corev1.ResourceName]{}
	for i, p := range c.ResizePolicy {
		at := path.Index(i)
		if seen.Has(p.ResourceName) {
			v.add(field.Duplicate(at, p.ResourceName))
		}
		seen.Insert(p.ResourceName)
		enum(v, path, p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		enum(v, path, p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if v.spec.RestartPolicy == corev1.RestartPolicyNever && p.RestartPolicy == corev1.RestartContainer {
			v.add(field.Invalid(path, p.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
}

// restartRules checks a container's own restart policy and the rules that refine it (KEP-5307).
func (v *podValidator) restartRules(c *corev1.Container, at *field.Path) {
	if c.RestartPolicy != nil {
		optionalEnum(v, at.Child("restartPolicy"), *c.RestartPolicy, corev1.ContainerRestartPolicyAlways,
			corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	}
	if len(c.RestartPolicyRules) == 0 {
		return
	}
	path := at.Child("restartPolicyRules")
	if c.RestartPolicy == nil {
		v.add(field.Required(at.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
	}
	if n := len(c.RestartPolicyRules); n > maxRestartRules {
		v.add(field.TooMany(path, n, maxRestartRules))
	}
	for i := range c.RestartPolicyRules {
		rule, at := &c.RestartPolicyRules[i], path.Index(i)
		enum(v, at.Child("action"), rule.Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		if rule.ExitCodes == nil {
			v.add(field.Required(at.Child("exitCodes"), "must be specified"))
			continue
		}
		codes := at.Child("exitCodes")
		optionalEnum(v, codes.Child("operator"), rule.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if n := len(rule.ExitCodes.Values); n == 0 {
			v.add(field.Required(codes.Child("values"), "must specify at least one value"))
		} else if n > maxRuleExitCodes {
			v.add(field.TooMany(codes.Child("values"), n, maxRuleExitCodes))
		}
		seen := sets.Set[int32]{}
		for j, code := range rule.ExitCodes.Values {
			if seen.Has(code) {
				v.add(field.Duplicate(codes.Child("values").Index(j), code))
			}
			seen.Insert(code)
		}
	}
}

func (v *podValidator) ports(ports []corev1.ContainerPort, path *field.Path) {
	var names sets.Set[string]
	for i := range ports {
		port, at := &ports[i], path.Index(i)
		if port.Name != "" {
			if messages := validation.IsValidPortName(port.Name); len(messages) > 0 {
				v.invalid(at.Child("name"), port.Name, messages)
			} else if names.Has(port.Name) {
				v.add(field.Duplicate(at.Child("name"), port.Name))
			} else {
				if names == nil {
					names = sets.Set[string]{}
				}
				names.Insert(port.Name)
			}
		}
		if port.ContainerPort == 0 {
			v.add(field.Required(at.Child("containerPort"), ""))
		} else if messages := validation.IsValidPortNum(int(port.ContainerPort)); len(messages) > 0 {
			v.invalid(at.Child("containerPort"), port.ContainerPort, messages)
		}
		if port.HostPort != 0 {
			v.invalid(at.Child("hostPort"), port.HostPort, validation.IsValidPortNum(int(port.HostPort)))
		}
		enum(v, at.Child("protocol"), port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
	}
}

// hostPortConflicts: a port of the host on one address can be had once only.
func (v *podValidator) hostPortConflicts(containers []corev1.Container, path *field.Path) {
	type hostPort struct {
		protocol corev1.Protocol
		ip       string
		port     int32
	}
	var seen map[hostPort]bool
	for i := range containers {
		for j := range containers[i].Ports {
			p := &containers[i].Ports[j]
			if p.HostPort == 0 {
				continue
			}
			key := hostPort{p.Protocol, p.HostIP, p.HostPort}
			if seen[key] {
				v.add(field.Duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"),
					fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)))
				continue
			}
			if seen == nil {
				seen = map[hostPort]bool{}
			}
			seen[key] = true
		}
	}
}

// hostNetworkPorts: on the host's network a port is the same inside and outside. A template may leave the outer one open,
// which is then set when the Pod is made.
func (v *podValidator) hostNetworkPorts(containers []corev1.Container, path *field.Path) {
	if !v.spec.HostNetwork {
		return
	}
	for i := range containers {
		for j := range containers[i].Ports {
			p := &containers[i].Ports[j]
			if (v.Pod || p.HostPort != 0) && p.HostPort != p.ContainerPort {
				v.add(field.Invalid(path.Index(i).Child("ports").Index(j).Child("hostPort"), p.HostPort,
					"must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
}
