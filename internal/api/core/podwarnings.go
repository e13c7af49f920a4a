package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func warnPod(_ context.Context, pod, old *corev1.Pod) []string {
	var warnings []string
	if old == nil {
		if messages := validation.IsDNS1123Label(pod.Name); pod.Name != "" && len(messages) > 0 {
			warnings = append(warnings, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, "+
				"which can result in surprising behavior; a DNS label is recommended: %v", messages))
		}
		return append(warnings, WarnPodSpec(&pod.Spec, nil, &pod.ObjectMeta, field.NewPath("spec"), PodOptions{Pod: true})...)
	}
	return WarnPodSpec(&pod.Spec, &old.Spec, &pod.ObjectMeta, field.NewPath("spec"), PodOptions{Pod: true})
}

// PodNamesWarning is the warning for an object with pods named after it whose name is not a DNS label.
func PodNamesWarning(messages []string) string {
	return fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "+
		"a DNS label is recommended: %v", messages)
}

// WarnPodTemplate gives the warnings for a pod template at path; old is nil on creation.
func WarnPodTemplate(template, old *corev1.PodTemplateSpec, path *field.Path) []string {
	var oldSpec *corev1.PodSpec
	if old != nil {
		oldSpec = &old.Spec
	}
	return WarnPodSpec(&template.Spec, oldSpec, &template.ObjectMeta, path.Child("spec"), PodOptions{})
}

// WarnPodSpec gives the warnings for a pod spec in a Pod or a template; old is the spec it replaces, nil on creation. path
// is that of the spec. What has not changed is not warned of again.
func WarnPodSpec(spec, old *corev1.PodSpec, meta *metav1.ObjectMeta, path *field.Path, opts PodOptions) []string {
	if old != nil && equality.Semantic.DeepEqual(spec, old) {
		return nil
	}
	w := &podWarner{spec: spec}
	for _, key := range slices.Sorted(maps.Keys(spec.NodeSelector)) {
		if use, ok := deprecatedNodeLabels[key]; ok {
			w.add("%s: %s", path.Child("nodeSelector").Key(key), use)
		}
	}
	w.affinity(path.Child("affinity"))
	for i := range spec.TopologySpreadConstraints {
		c, at := &spec.TopologySpreadConstraints[i], path.Child("topologySpreadConstraints").Index(i)
		if use, ok := deprecatedNodeLabels[c.TopologyKey]; ok {
			w.add("%s: %s is %s", at.Child("topologyKey"), c.TopologyKey, use)
		}
		if c.LabelSelector == nil {
			w.add("%s: a null labelSelector results in matching no pod", at.Child("labelSelector"))
		}
	}
	w.annotations(meta, path)
	w.network(path)
	for i := range spec.Volumes {
		w.volume(&spec.Volumes[i], path.Child("volumes").Index(i))
	}
	for i, secret := range spec.ImagePullSecrets {
		if secret.Name == "" {
			w.add("%s: invalid empty name %q", path.Child("imagePullSecrets").Index(i).Child("name"), "")
		}
	}
	w.containers(path)
	w.portNames(path)
	if g := spec.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		w.add("%s: must be >= 0; negative values are invalid and will be treated as 1", path.Child("terminationGracePeriodSeconds"))
	}
	return w.warnings
}

type podWarner struct {
	spec     *corev1.PodSpec
	warnings []string
}

func (w *podWarner) add(format string, args ...any) {
	w.warnings = append(w.warnings, fmt.Sprintf(format, args...))
}

// deprecatedNodeLabels are the labels of nodes that have a new name.
var deprecatedNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":           `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":             `deprecated since v1.14; use "kubernetes.io/os" instead`,
	corev1.LabelFailureDomainBetaRegion: `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	corev1.LabelFailureDomainBetaZone:   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	corev1.LabelInstanceType:            `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

func (w *podWarner) affinity(path *field.Path) {
	a := w.spec.Affinity
	if a == nil {
		return
	}
	const required, preferred = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
	if n := a.NodeAffinity; n != nil {
		at := path.Child("nodeAffinity")
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			for i := range r.NodeSelectorTerms {
				w.nodeTerm(&r.NodeSelectorTerms[i], at.Child(required, "nodeSelectorTerms").Index(i))
			}
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			w.nodeTerm(&n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, at.Child(preferred).Index(i).Child("preference"))
		}
	}
	terms := func(req []corev1.PodAffinityTerm, pref []corev1.WeightedPodAffinityTerm, at *field.Path) {
		for i := range req {
			w.podTerm(&req[i], at.Child(required).Index(i))
		}
		for i := range pref {
			w.podTerm(&pref[i].PodAffinityTerm, at.Child(preferred).Index(i).Child("podAffinityTerm"))
		}
	}
	if p := a.PodAffinity; p != nil {
		terms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, path.Child("podAffinity"))
	}
	if p := a.PodAntiAffinity; p != nil {
		terms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, path.Child("podAntiAffinity"))
	}
}

func (w *podWarner) nodeTerm(term *corev1.NodeSelectorTerm, path *field.Path) {
	for i, e := range term.MatchExpressions {
		if use, ok := deprecatedNodeLabels[e.Key]; ok {
			w.add("%s: %s is %s", path.Child("matchExpressions").Index(i).Child("key"), e.Key, use)
		}
	}
}

func (w *podWarner) podTerm(term *corev1.PodAffinityTerm, path *field.Path) {
	if term.LabelSelector == nil {
		w.add("%s: a null labelSelector results in matching no pod", path.Child("labelSelector"))
	}
}

func (w *podWarner) annotations(meta *metav1.ObjectMeta, spec *field.Path) {
	if meta == nil || len(meta.Annotations) == 0 {
		return
	}
	path := field.NewPath("metadata", "annotations")
	if template, ok := strings.CutSuffix(spec.String(), ".spec"); ok {
		path = field.NewPath(template, "metadata", "annotations")
	}
	for _, key := range slices.Sorted(maps.Keys(meta.Annotations)) {
		switch {
		case key == "scheduler.alpha.kubernetes.io/critical-pod":
			w.add(`%s: non-functional in v1.16+; use the "priorityClassName" field instead`, path.Key(key))
		case key == corev1.SeccompPodAnnotationKey, strings.HasPrefix(key, corev1.SeccompContainerAnnotationKeyPrefix):
			w.add(`%s: non-functional in v1.27+; use the "seccompProfile" field instead`, path.Key(key))
		case strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix):
			w.add(`%s: deprecated since v1.30; use the "appArmorProfile" field instead`, path.Key(key))
		}
	}
}

func (w *podWarner) network(path *field.Path) {
	seen := map[string]bool{}
	for i, alias := range w.spec.HostAliases {
		at := path.Child("hostAliases").Index(i).Child("ip")
		if seen[alias.IP] {
			w.add("%s: duplicate ip %q", at, alias.IP)
		}
		seen[alias.IP] = true
		w.ip(alias.IP, at)
	}
	if c := w.spec.DNSConfig; c != nil {
		for i, ns := range c.Nameservers {
			w.ip(ns, path.Child("dnsConfig", "nameservers").Index(i))
		}
	}
}

// ip warns of addresses that are valid and unusual. Warnings are computed for what turns out to be invalid, too, where
// the error says enough.
func (w *podWarner) ip(ip string, path *field.Path) {
	if len(validation.IsValidIPForLegacyField(path, ip, true, nil)) == 0 {
		w.warnings = append(w.warnings, validation.GetWarningsForIP(path, ip)...)
	}
}

func (w *podWarner) volume(v *corev1.Volume, path *field.Path) {
	s := &v.VolumeSource
	for _, old := range []struct {
		set        bool
		name, what string
	}{
		{s.GitRepo != nil, "gitRepo", "deprecated in v1.11"},
		{s.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
		{s.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
		{s.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+"},
		{s.StorageOS != nil, "storageos", "deprecated in v1.22, non-functional in v1.25+"},
		{s.Quobyte != nil, "quobyte", "deprecated in v1.22, non-functional in v1.25+"},
		{s.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
		{s.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
		{s.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+"},
	} {
		if old.set {
			w.add("%s: %s", path.Child(old.name), old.what)
		}
	}
	if s.Ephemeral != nil && s.Ephemeral.VolumeClaimTemplate != nil {
		w.warnings = append(w.warnings, warnFractionalBytes(s.Ephemeral.VolumeClaimTemplate.Spec.Resources.Requests,
			path.Child("ephemeral", "volumeClaimTemplate", "spec", "resources", "requests"))...)
	}
}

func (w *podWarner) containers(path *field.Path) {
	v := &podValidator{spec: w.spec}
	v.eachContainer(path, func(c *corev1.Container, list *field.Path, i int) {
		if r := &c.Resources; len(r.Limits)+len(r.Requests) > 0 {
			at := list.Index(i).Child("resources")
			w.warnings = append(w.warnings, warnFractionalBytes(r.Limits, at.Child("limits"))...)
			w.warnings = append(w.warnings, warnFractionalBytes(r.Requests, at.Child("requests"))...)
		}
		if len(c.Env) > 1 {
			w.env(c.Env, list.Index(i).Child("env"))
		}
		if len(c.Ports) > 1 {
			w.ports(c.Ports, list.Index(i).Child("ports"))
		}
	})
}

// env: of two variables with one name the second counts, unless the value of the first is a part of it.
func (w *podWarner) env(env []corev1.EnvVar, path *field.Path) {
	var seen map[string]bool
	for i := range env {
		name := env[i].Name
		if seen[name] && !strings.Contains(env[i].Value, "$("+name+")") {
			w.add("%s: hides previous definition of %q, which may be dropped when using apply", path.Index(i), name)
		}
		if seen == nil {
			seen = make(map[string]bool, len(env))
		}
		seen[name] = true
	}
}

func (w *podWarner) ports(ports []corev1.ContainerPort, path *field.Path) {
	for i := range ports {
		for j := range ports[:i] {
			p, q := &ports[i], &ports[j]
			if p.ContainerPort != q.ContainerPort || p.Protocol != q.Protocol {
				continue
			}
			switch {
			case p.HostPort == q.HostPort && p.HostIP == q.HostIP:
				w.add("%s: duplicate port definition with %s", path.Index(i), path.Index(j))
			case p.HostPort == 0 || q.HostPort == 0 || p.HostPort == q.HostPort && (p.HostIP == "" || q.HostIP == ""):
				w.add("%s: overlapping port definition with %s", path.Index(i), path.Index(j))
			default:
				continue
			}
			break
		}
	}
}

// portNames: a name that two containers use leads to the port of the first.
func (w *podWarner) portNames(path *field.Path) {
	type key struct {
		name     string
		protocol corev1.Protocol
	}
	type place struct{ container, port int }
	at := func(p place) string {
		return path.Child("containers").Index(p.container).Child("ports").Index(p.port).String()
	}
	seen := map[key]place{}
	for i := range w.spec.Containers {
		for j, p := range w.spec.Containers[i].Ports {
			if p.Name == "" {
				continue
			}
			if other, ok := seen[key{p.Name, p.Protocol}]; ok {
				first := at(other)
				w.add("%s: duplicate port name %q with %s, services and probes that select ports by name will use %s", at(place{i, j}), p.Name, first, first)
				continue
			}
			seen[key{p.Name, p.Protocol}] = place{i, j}
		}
	}
}
