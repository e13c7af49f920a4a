package core

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volumeMounts checks what a container mounts. Some errors carry the path of the list, not of its element, as clients know
// them.
func (v *podValidator) volumeMounts(c *corev1.Container, list *field.Path) {
	points := make(sets.Set[string], len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		m, at := &c.VolumeMounts[i], list.Index(i)
		v.required(m.Name, at, "name")
		if v.volumes[m.Name] == nil {
			v.add(field.NotFound(at.Child("name"), m.Name))
		}
		v.required(m.MountPath, at, "mountPath")
		if points.Has(m.MountPath) {
			v.add(field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		points.Insert(m.MountPath)
		for j := range c.VolumeDevices {
			if c.VolumeDevices[j].Name == m.Name {
				v.add(field.Invalid(at.Child("name"), m.Name, "must not already exist in volumeDevices"))
			}
			if c.VolumeDevices[j].DevicePath == m.MountPath {
				v.add(field.Invalid(at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
			}
		}
		if m.SubPath != "" {
			v.localDescendingPath(m.SubPath, list.Child("subPath"))
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				v.add(field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
			}
			v.localDescendingPath(m.SubPathExpr, list.Child("subPathExpr"))
		}
		v.mountPropagation(m, c, list.Child("mountPropagation"))
		v.recursiveReadOnly(m, list.Child("recursiveReadOnly"))
	}
}

func (v *podValidator) mountPropagation(m *corev1.VolumeMount, c *corev1.Container, path *field.Path) {
	p := m.MountPropagation
	if p == nil {
		return
	}
	optionalEnum(v, path, *p, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
	if *p == corev1.MountPropagationBidirectional && !privileged {
		v.add(field.Forbidden(path, "Bidirectional mount propagation is available only to privileged containers"))
	}
}

// recursiveReadOnly: only what is read-only can be so recursively, and no mount may come in from outside (KEP-3857).
func (v *podValidator) recursiveReadOnly(m *corev1.VolumeMount, path *field.Path) {
	mode := m.RecursiveReadOnly
	if mode == nil {
		return
	}
	switch *mode {
	case corev1.RecursiveReadOnlyDisabled:
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		if !m.ReadOnly {
			v.add(field.Forbidden(path, "may only be specified when readOnly is true"))
		}
		if p := m.MountPropagation; p != nil && *p != corev1.MountPropagationNone {
			v.add(field.Forbidden(path, "may only be specified when mountPropagation is None or not specified"))
		}
	default:
		v.add(field.NotSupported(path, *mode, []corev1.RecursiveReadOnlyMode{
			corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible}))
	}
}

// volumeDevices checks the block devices of a container, which come from claims.
func (v *podValidator) volumeDevices(c *corev1.Container, list *field.Path) {
	names, paths := sets.Set[string]{}, sets.Set[string]{}
	for i, d := range c.VolumeDevices {
		at := list.Index(i)
		v.required(d.Name, at, "name")
		if names.Has(d.Name) {
			v.add(field.Invalid(at.Child("name"), d.Name, "must be unique"))
		}
		names.Insert(d.Name)
		if volume := v.volumes[d.Name]; volume == nil {
			v.add(field.NotFound(at.Child("name"), d.Name))
		} else if volume.PersistentVolumeClaim == nil && volume.Ephemeral == nil {
			v.add(field.Invalid(at.Child("name"), d.Name,
				"can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		v.required(d.DevicePath, at, "devicePath")
		if paths.Has(d.DevicePath) {
			v.add(field.Invalid(at.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		paths.Insert(d.DevicePath)
		if hasBackstep(d.DevicePath) {
			v.add(field.Invalid(at.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')"))
		}
		for j := range c.VolumeMounts {
			if c.VolumeMounts[j].Name == d.Name {
				v.add(field.Invalid(at.Child("name"), d.Name, "must not already exist in volumeMounts"))
			}
			if c.VolumeMounts[j].MountPath == d.DevicePath {
				v.add(field.Invalid(at.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts"))
			}
		}
	}
}

// localDescendingPath: relative, and never up.
func (v *podValidator) localDescendingPath(p string, at *field.Path) {
	if path.IsAbs(p) {
		v.add(field.Invalid(at, p, "must be a relative path"))
	}
	v.noBackstep(p, at)
}

func (v *podValidator) noBackstep(p string, at *field.Path) {
	if hasBackstep(p) {
		v.add(field.Invalid(at, p, "must not contain '..'"))
	}
}

// localPath is a descending path whose names don't start with two dots either: these are for atomic updates.
func (v *podValidator) localPath(p string, at *field.Path) {
	v.localDescendingPath(p, at)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") && !slices.Contains(strings.Split(p, "/"), "..") {
		v.add(field.Invalid(at, p, "must not start with '..'"))
	}
}
