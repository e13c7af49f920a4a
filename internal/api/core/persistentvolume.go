package core

import (
	"context"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// PersistentVolume describes persistentvolumes.
func PersistentVolume() *api.Resource {
	spec := corev1.PersistentVolumeSpec{}.SwaggerDoc()
	return api.Define[corev1.PersistentVolume, corev1.PersistentVolumeList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "persistentvolumes", Singular: "persistentvolume", Kind: "PersistentVolume", ShortNames: []string{"pv"},
		Prefix: "persistentvolumes", ReturnDeleted: true,
		Strategy: api.Typed[*corev1.PersistentVolume]{
			Default: defaultVolumeObject,
			PrepareCreate: func(_ context.Context, pv *corev1.PersistentVolume) {
				pv.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: ptr.To(metav1.Now())}
			},
			PrepareUpdate: func(_ context.Context, pv, old *corev1.PersistentVolume) { pv.Status = old.Status },
			Validate: func(_ context.Context, pv *corev1.PersistentVolume) field.ErrorList {
				return validateVolumeSpec(&pv.Spec, false)
			},
			ValidateUpdate: validateVolumeUpdate,
			Warn:           warnVolume,
			ResetFields:    api.Reset([]string{"v1"}, statusPath),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(corev1.SchemeGroupVersion.WithKind("PersistentVolume"), api.Typed[*corev1.PersistentVolume]{
				PrepareUpdate: prepareVolumeStatus,
				ResetFields:   api.Reset([]string{"v1"}, specPath),
			}.Strategy()),
		},
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Capacity", "string", spec["capacity"]),
			api.Column("Access Modes", "string", spec["accessModes"]),
			api.Column("Reclaim Policy", "string", spec["persistentVolumeReclaimPolicy"]),
			api.Column("Status", "string", corev1.PersistentVolumeStatus{}.SwaggerDoc()["phase"]),
			api.Column("Claim", "string", spec["claimRef"]),
			api.Column("StorageClass", "string", "StorageClass of the pv"),
			api.Column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
			api.Column("Reason", "string", corev1.PersistentVolumeStatus{}.SwaggerDoc()["reason"]),
			api.AgeColumn(),
			api.WideColumn("VolumeMode", "string", spec["volumeMode"]),
		},
		Row: api.Row(volumeRow),
	})
}

func defaultVolumeObject(pv *corev1.PersistentVolume) {
	if pv.Status.Phase == "" {
		pv.Status.Phase = corev1.VolumePending
	}
	if pv.Spec.PersistentVolumeReclaimPolicy == "" {
		pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	setDefault(&pv.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	roundUp(pv.Spec.Capacity)
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	switch s := &pv.Spec.PersistentVolumeSource; {
	case s.HostPath != nil:
		setDefault(&s.HostPath.Type, corev1.HostPathUnset)
	case s.ISCSI != nil:
		set(&s.ISCSI.ISCSIInterface, defaultISCSIInterface)
	case s.RBD != nil:
		set(&s.RBD.RBDPool, defaultRBDPool)
		set(&s.RBD.RadosUser, defaultRBDUser)
		set(&s.RBD.Keyring, defaultRBDKeyring)
	case s.AzureDisk != nil:
		defaultAzureDisk(s.AzureDisk)
	case s.ScaleIO != nil:
		set(&s.ScaleIO.StorageMode, defaultScaleIOMode)
		set(&s.ScaleIO.FSType, defaultScaleIOFilesystem)
	}
}

// prepareVolumeStatus keeps the time of the last change of phase, unless the writer gives one (KEP-3762).
func prepareVolumeStatus(_ context.Context, pv, old *corev1.PersistentVolume) {
	pv.Spec = old.Spec
	switch given := pv.Status.LastPhaseTransitionTime; {
	case pv.Status.Phase == old.Status.Phase:
		if given == nil {
			pv.Status.LastPhaseTransitionTime = old.Status.LastPhaseTransitionTime
		}
	case given == nil || given.Equal(old.Status.LastPhaseTransitionTime):
		pv.Status.LastPhaseTransitionTime = ptr.To(metav1.Now())
	}
}

// validateVolumeSpec checks a volume. anyValue lets label values pass that are refused by now.
func validateVolumeSpec(spec *corev1.PersistentVolumeSpec, anyValue bool) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateAccessModes(spec.AccessModes, at.Child("accessModes"), "")
	if len(spec.Capacity) == 0 {
		errs = append(errs, field.Required(at.Child("capacity"), ""))
	}
	if _, ok := spec.Capacity[corev1.ResourceStorage]; !ok || len(spec.Capacity) > 1 {
		errs = append(errs, field.NotSupported(at.Child("capacity"), spec.Capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for _, name := range sortedNames(spec.Capacity) {
		if q := spec.Capacity[name]; q.Sign() <= 0 {
			errs = append(errs, field.Invalid(at.Child("capacity").Key(string(name)), q.String(), "must be greater than zero"))
		}
	}
	errs = append(errs, api.ValidateEnum(at.Child("persistentVolumeReclaimPolicy"), spec.PersistentVolumeReclaimPolicy,
		corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
	errs = append(errs, validateVolumeAffinity(spec.NodeAffinity, at.Child("nodeAffinity"), anyValue)...)
	errs = append(errs, validateVolumeSources(spec, at)...)
	if h := spec.HostPath; h != nil && path.Clean(h.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	if spec.StorageClassName != "" {
		errs = append(errs, invalidName(spec.StorageClassName, at.Child("storageClassName"))...)
	}
	errs = append(errs, validateVolumeAttributesClass(spec, at)...)
	return append(errs, validateVolumeMode(spec.VolumeMode, at.Child("volumeMode"))...)
}

func validateVolumeAttributesClass(spec *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	name := spec.VolumeAttributesClassName
	if name == nil {
		return nil
	}
	var errs field.ErrorList
	if *name == "" {
		errs = append(errs, field.Required(at.Child("volumeAttributesClassName"), "an empty string is disallowed"))
	} else {
		errs = append(errs, invalidName(*name, at.Child("volumeAttributesClassName"))...)
	}
	if spec.CSI == nil {
		errs = append(errs, field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
	}
	return errs
}

func validateVolumeAffinity(a *corev1.VolumeNodeAffinity, at *field.Path, anyValue bool) field.ErrorList {
	if a == nil {
		return nil
	}
	if a.Required == nil {
		return field.ErrorList{field.Required(at.Child("required"), "must specify required node constraints")}
	}
	return validateNodeSelector(a.Required, at.Child("required"), anyValue)
}

// validateVolumeSources checks that there is one source, and it.
func validateVolumeSources(spec *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	s, v := &spec.PersistentVolumeSource, &podValidator{}
	specPath, c := at, &sourceCheck{v: v, at: at}
	c.is(s.HostPath != nil, "hostPath", func(at *field.Path) { v.hostPath(s.HostPath, at) })
	c.is(s.Local != nil, "local", func(at *field.Path) {
		v.required(s.Local.Path, at, "path")
		v.noBackstep(s.Local.Path, at.Child("path"))
		if spec.NodeAffinity == nil {
			v.add(field.Required(specPath.Child("nodeAffinity"), "Local volume requires node affinity"))
		}
	})
	c.is(s.NFS != nil, "nfs", func(at *field.Path) {
		v.addAll(requireAll(at, "server", s.NFS.Server, "path", s.NFS.Path))
		if !path.IsAbs(s.NFS.Path) {
			v.add(field.Invalid(at.Child("path"), s.NFS.Path, "must be an absolute path"))
		}
	})
	c.is(s.CSI != nil, "csi", func(at *field.Path) {
		v.csiDriver(s.CSI.Driver, at.Child("driver"))
		v.required(s.CSI.VolumeHandle, at, "volumeHandle")
		for _, s := range []struct {
			name string
			ref  *corev1.SecretReference
		}{
			{"controllerPublishSecretRef", s.CSI.ControllerPublishSecretRef}, {"nodePublishSecretRef", s.CSI.NodePublishSecretRef},
			{"controllerExpandSecretRef", s.CSI.ControllerExpandSecretRef}, {"nodeExpandSecretRef", s.CSI.NodeExpandSecretRef},
		} {
			if s.ref != nil {
				v.addAll(validateSecretReference(s.ref, at.Child(s.name)))
			}
		}
	})
	c.is(s.ISCSI != nil, "iscsi", func(at *field.Path) {
		v.addAll(validateISCSI(s.ISCSI.TargetPortal, s.ISCSI.IQN, s.ISCSI.Lun, at))
		if (s.ISCSI.DiscoveryCHAPAuth || s.ISCSI.SessionCHAPAuth) && s.ISCSI.SecretRef == nil {
			v.add(field.Required(at.Child("secretRef"), ""))
		} else if s.ISCSI.SecretRef != nil {
			v.required(s.ISCSI.SecretRef.Name, at.Child("secretRef"), "name")
		}
		v.addAll(validateInitiator(s.ISCSI.InitiatorName, s.ISCSI.IQN, at))
	})
	validateNetworkVolumes(s, v, c)
	validateCloudVolumes(s, v, c)
	if c.count == 0 {
		v.add(field.Required(at, "must specify a volume type"))
	}
	return v.errs
}

func validateSecretReference(ref *corev1.SecretReference, at *field.Path) field.ErrorList {
	errs := requireAll(at, "name", ref.Name, "namespace", ref.Namespace)
	if ref.Name != "" {
		errs = append(errs, api.InvalidAll(at.Child("name"), ref.Name, validation.IsDNS1123Subdomain(ref.Name))...)
	}
	if ref.Namespace != "" {
		errs = append(errs, api.InvalidAll(at.Child("namespace"), ref.Namespace, validation.IsDNS1123Label(ref.Namespace))...)
	}
	return errs
}

func validateNetworkVolumes(s *corev1.PersistentVolumeSource, v *podValidator, c *sourceCheck) {
	monitors := func(list []string, at *field.Path) {
		if len(list) == 0 {
			v.add(field.Required(at.Child("monitors"), ""))
		}
	}
	c.is(s.Glusterfs != nil, "glusterfs", func(at *field.Path) {
		v.addAll(requireAll(at, "endpoints", s.Glusterfs.EndpointsName, "path", s.Glusterfs.Path))
		if ns := s.Glusterfs.EndpointsNamespace; ns != nil {
			v.invalid(at.Child("endpointsNamespace"), *ns, apivalidation.ValidateNamespaceName(*ns, false))
		}
	})
	c.is(s.RBD != nil, "rbd", func(at *field.Path) {
		monitors(s.RBD.CephMonitors, at)
		v.required(s.RBD.RBDImage, at, "image")
	})
	c.is(s.CephFS != nil, "cephfs", func(at *field.Path) { monitors(s.CephFS.Monitors, at) })
	c.is(s.FC != nil, "fc", func(at *field.Path) { v.addAll(validateFC(s.FC, at)) })
	c.is(s.Flocker != nil, "flocker", func(at *field.Path) { v.addAll(validateFlocker(s.Flocker, at)) })
	c.is(s.FlexVolume != nil, "flexVolume", func(at *field.Path) { v.addAll(validateFlex(s.FlexVolume.Driver, s.FlexVolume.Options, at)) })
	c.is(s.Quobyte != nil, "quobyte", func(at *field.Path) { v.addAll(validateQuobyte(s.Quobyte, at)) })
	c.is(s.ScaleIO != nil, "scaleIO", func(at *field.Path) {
		v.addAll(requireAll(at, "gateway", s.ScaleIO.Gateway, "system", s.ScaleIO.System, "volumeName", s.ScaleIO.VolumeName))
	})
	c.is(s.StorageOS != nil, "storageos", func(at *field.Path) {
		v.addAll(validateStorageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, at))
		if ref := s.StorageOS.SecretRef; ref != nil {
			v.addAll(requireAll(at.Child("secretRef"), "name", ref.Name, "namespace", ref.Namespace))
		}
	})
}

func validateCloudVolumes(s *corev1.PersistentVolumeSource, v *podValidator, c *sourceCheck) {
	c.is(s.GCEPersistentDisk != nil, "gcePersistentDisk", func(at *field.Path) {
		v.required(s.GCEPersistentDisk.PDName, at, "pdName")
		v.addAll(validatePartition(s.GCEPersistentDisk.Partition, at))
	})
	c.is(s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(at *field.Path) {
		v.required(s.AWSElasticBlockStore.VolumeID, at, "volumeID")
		v.addAll(validatePartition(s.AWSElasticBlockStore.Partition, at))
	})
	c.is(s.Cinder != nil, "cinder", func(at *field.Path) {
		v.required(s.Cinder.VolumeID, at, "volumeID")
		if ref := s.Cinder.SecretRef; ref != nil {
			v.addAll(requireAll(at.Child("secretRef"), "name", ref.Name, "namespace", ref.Namespace))
		}
	})
	c.is(s.AzureFile != nil, "azureFile", func(at *field.Path) {
		v.addAll(requireAll(at, "secretName", s.AzureFile.SecretName, "shareName", s.AzureFile.ShareName))
		if ns := s.AzureFile.SecretNamespace; ns != nil && *ns == "" {
			v.add(field.Required(at.Child("secretNamespace"), ""))
		}
	})
	c.is(s.AzureDisk != nil, "azureDisk", func(at *field.Path) { v.addAll(validateAzureDisk(s.AzureDisk, at)) })
	c.is(s.VsphereVolume != nil, "vsphereVolume", func(at *field.Path) { v.required(s.VsphereVolume.VolumePath, at, "volumePath") })
	c.is(s.PhotonPersistentDisk != nil, "photonPersistentDisk", func(at *field.Path) { v.required(s.PhotonPersistentDisk.PdID, at, "pdID") })
	c.is(s.PortworxVolume != nil, "portworxVolume", func(at *field.Path) { v.required(s.PortworxVolume.VolumeID, at, "volumeID") })
}

// validateVolumeUpdate: where the data is can't change; of a CSI volume the secret for its expansion can.
func validateVolumeUpdate(_ context.Context, pv, old *corev1.PersistentVolume) field.ErrorList {
	at := field.NewPath("spec")
	was := old.Spec.NodeAffinity
	errs := validateVolumeSpec(&pv.Spec, was != nil && hasInvalidNodeValues(was.Required))
	next := pv.Spec.PersistentVolumeSource.DeepCopy()
	if next.CSI != nil && old.Spec.CSI != nil && old.Spec.CSI.ControllerExpandSecretRef == nil {
		next.CSI.ControllerExpandSecretRef = nil
	}
	if !equality.Semantic.DeepEqual(next, &old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(at.Child("persistentvolumesource"),
			"spec.persistentvolumesource is immutable after creation\n"+diff.Diff(&old.Spec.PersistentVolumeSource, next)))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(pv.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if was != nil && !equality.Semantic.DeepEqual(withStableLabels(was, pv.Spec.NodeAffinity), pv.Spec.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), pv.Spec.NodeAffinity,
			"field is immutable, except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && pv.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(at.Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// stableLabels are the names by which labels of nodes go that had others before.
var stableLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
	corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os":             corev1.LabelOSStable,
	"beta.kubernetes.io/arch":           corev1.LabelArchStable,
	corev1.LabelInstanceType:            corev1.LabelInstanceTypeStable,
}

// withStableLabels is the old affinity with those labels renamed that the new one names by their stable names.
func withStableLabels(old, next *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if old.Required == nil || next == nil || next.Required == nil {
		return old
	}
	old = old.DeepCopy()
	terms, nextTerms := old.Required.NodeSelectorTerms, next.Required.NodeSelectorTerms
	for i := range min(len(terms), len(nextTerms)) {
		for j := range min(len(terms[i].MatchExpressions), len(nextTerms[i].MatchExpressions)) {
			e := &terms[i].MatchExpressions[j]
			if stable, ok := stableLabels[e.Key]; ok && nextTerms[i].MatchExpressions[j].Key == stable {
				e.Key = stable
			}
		}
	}
	return old
}

func warnVolume(_ context.Context, pv, old *corev1.PersistentVolume) []string {
	if old != nil && equality.Semantic.DeepEqual(pv.Spec, old.Spec) {
		return nil
	}
	var warnings []string
	if pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		warnings = append(warnings, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	return append(warnings, warnFractionalBytes(pv.Spec.Capacity, field.NewPath("spec", "capacity"))...)
}

func volumeRow(pv *corev1.PersistentVolume) []any {
	claim, mode, attributes := "", "<unset>", "<unset>"
	if ref := pv.Spec.ClaimRef; ref != nil {
		claim = ref.Namespace + "/" + ref.Name
	}
	if pv.Spec.VolumeMode != nil {
		mode = string(*pv.Spec.VolumeMode)
	}
	if pv.Spec.VolumeAttributesClassName != nil {
		attributes = *pv.Spec.VolumeAttributesClassName
	}
	class := pv.Spec.StorageClassName
	if named, ok := pv.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = named
	}
	phase := string(pv.Status.Phase)
	if pv.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	storage := pv.Spec.Capacity[corev1.ResourceStorage]
	return []any{pv.Name, quantityCell(storage), accessModesCell(pv.Spec.AccessModes), string(pv.Spec.PersistentVolumeReclaimPolicy),
		phase, claim, class, attributes, pv.Status.Reason, api.Since(pv.CreationTimestamp), mode}
}
