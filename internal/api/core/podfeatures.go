package core

import (
	corev1 "k8s.io/api/core/v1"
)

// dropOffFields clears the fields of features that Kubernetes 1.37 has off unless an administrator turns them on. A server
// where a feature is off drops its fields, so that nobody takes them to be in force:
// EvictionRequestAPI, GenericWorkload, AtomicWriteVolumeUserFields, EmptyDirVolumeMode, VolumeBindMountOptions,
// H2CContainerProbe, GRPCContainerProbeTLS.
func dropOffFields(spec *corev1.PodSpec) {
	spec.EvictionResponders = nil
	spec.SchedulingGroup = nil
	for i := range spec.Volumes {
		dropOffVolumeFields(&spec.Volumes[i].VolumeSource)
	}
	for c := range Containers(spec) {
		for i := range c.VolumeMounts {
			c.VolumeMounts[i].BindMountOptions = nil
		}
		for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if probe == nil {
				continue
			}
			if probe.HTTPGet != nil {
				probe.HTTPGet.Protocol = nil
			}
			if probe.GRPC != nil {
				probe.GRPC.Mode = nil
			}
		}
		if l := c.Lifecycle; l != nil {
			for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
				if h != nil && h.HTTPGet != nil {
					h.HTTPGet.Protocol = nil
				}
			}
		}
	}
}

func dropOffVolumeFields(s *corev1.VolumeSource) {
	if s.EmptyDir != nil {
		s.EmptyDir.Mode = nil
	}
	if s.Secret != nil {
		s.Secret.DefaultUser = nil
		dropUsers(s.Secret.Items)
	}
	if s.ConfigMap != nil {
		s.ConfigMap.DefaultUser = nil
		dropUsers(s.ConfigMap.Items)
	}
	if s.DownwardAPI != nil {
		s.DownwardAPI.DefaultUser = nil
		dropFileUsers(s.DownwardAPI.Items)
	}
	if s.Ephemeral != nil && s.Ephemeral.VolumeClaimTemplate != nil {
		alignDataSources(&s.Ephemeral.VolumeClaimTemplate.Spec)
	}
	if s.Projected == nil {
		return
	}
	s.Projected.DefaultUser = nil
	for i := range s.Projected.Sources {
		p := &s.Projected.Sources[i]
		if p.Secret != nil {
			dropUsers(p.Secret.Items)
		}
		if p.ConfigMap != nil {
			dropUsers(p.ConfigMap.Items)
		}
		if p.DownwardAPI != nil {
			dropFileUsers(p.DownwardAPI.Items)
		}
		if p.ServiceAccountToken != nil {
			p.ServiceAccountToken.User = nil
		}
		if p.ClusterTrustBundle != nil {
			p.ClusterTrustBundle.User = nil
		}
		if p.PodCertificate != nil {
			p.PodCertificate.User = nil
		}
	}
}

func dropUsers(items []corev1.KeyToPath) {
	for i := range items {
		items[i].User = nil
	}
}

func dropFileUsers(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		items[i].User = nil
	}
}

// PreparePodTemplate drops from a pod template what belongs to features that are off. The kinds that have a template
// call it when they are created or updated.
func PreparePodTemplate(template *corev1.PodTemplateSpec) {
	dropOffFields(&template.Spec)
}
