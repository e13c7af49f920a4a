package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

var volumes = corev1.Resource("persistentvolumes")

// newDefaultStorageClass gives claims without a class the default one.
func newDefaultStorageClass(c *Config) *Plugin {
	if c.StorageClasses == nil {
		return nil
	}
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(claims, admission.Create) },
		Admit: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
			if !ok || volumehelper.PersistentVolumeClaimHasClass(claim) {
				return nil
			}
			all, err := c.StorageClasses(ctx, "")
			if err != nil {
				return admission.NewForbidden(a, fmt.Errorf("reading storage classes: %w", err))
			}
			if class := newestDefault(all, "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"); class != nil {
				claim.Spec.StorageClassName = &class.Name
			}
			return nil
		},
	}
}

// newestDefault gives the class with one of the annotations; of several the newest, then the first by name.
func newestDefault[T interface {
	metav1.Object
	comparable
}](all []T, annotations ...string) (best T) {
	var none T
	for _, class := range all {
		if !slices.ContainsFunc(annotations, func(a string) bool { return class.GetAnnotations()[a] == "true" }) {
			continue
		}
		if best == none {
			best = class
			continue
		}
		created, than := class.GetCreationTimestamp().Time, best.GetCreationTimestamp().Time
		if created.After(than) || created.Equal(than) && class.GetName() < best.GetName() {
			best = class
		}
	}
	return best
}

// newStorageObjectInUseProtection keeps claims and volumes from going away while they are used; the controllers of
// protection take the finalizers away.
func newStorageObjectInUseProtection(c *Config) *Plugin {
	if !c.StorageProtection {
		return nil
	}
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(claims, admission.Create) || t.Is(volumes, admission.Create) },
		Admit: func(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			switch o := a.GetObject().(type) {
			case *corev1.PersistentVolumeClaim:
				addFinalizer(o, "kubernetes.io/pvc-protection")
			case *corev1.PersistentVolume:
				addFinalizer(o, "kubernetes.io/pv-protection")
			}
			return nil
		},
	}
}

func addFinalizer(o metav1.Object, name string) {
	if list := o.GetFinalizers(); !slices.Contains(list, name) {
		o.SetFinalizers(append(list, name))
	}
}

// newClaimResize lets claims grow only where the class of their volume can do it.
func newClaimResize(c *Config) *Plugin {
	if c.StorageClasses == nil {
		return nil
	}
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(claims, admission.Update) },
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			claim, ok1 := a.GetObject().(*corev1.PersistentVolumeClaim)
			old, ok2 := a.GetOldObject().(*corev1.PersistentVolumeClaim)
			if !ok1 || !ok2 || claim.Spec.Resources.Requests.Storage().Cmp(*old.Spec.Resources.Requests.Storage()) <= 0 {
				return nil
			}
			if old.Status.Phase != corev1.ClaimBound {
				//lint:ignore ST1005 the words are upstream's
				return admission.NewForbidden(a, errors.New("Only bound persistent volume claims can be expanded"))
			}
			all, err := c.StorageClasses(ctx, "")
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("reading storage classes: %w", err))
			}
			name := volumehelper.GetPersistentVolumeClaimClass(claim)
			i := slices.IndexFunc(all, func(s *storagev1.StorageClass) bool { return s.Name == name })
			if name == "" || i < 0 || all[i].AllowVolumeExpansion == nil || !*all[i].AllowVolumeExpansion {
				return admission.NewForbidden(a, errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
			}
			return nil
		},
	}
}
