package core

import (
	"fmt"
	"maps"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	modeDetail          = "must be a number between 0 and 0777 (octal), both inclusive"
	manyVolumesDetail   = "may not specify more than 1 volume type"
	maxFileMode         = 0o777
	minTokenSeconds     = 10 * 60
	maxTokenSeconds     = 1 << 32
	minCertificateLife  = 60 * 60
	maxCertificateLife  = 91 * 24 * 60 * 60
	maxUserAnnotations  = 256 * 1024
	duplicatePathDetail = "conflicting duplicate paths"
)

func (v *podValidator) volumeList(list *field.Path) {
	v.volumes = make(map[string]*corev1.Volume, len(v.spec.Volumes))
	for i := range v.spec.Volumes {
		volume, at := &v.spec.Volumes[i], list.Index(i)
		before := len(v.errs)
		v.volumeSource(volume, at)
		if volume.Name == "" {
			v.add(field.Required(at.Child("name"), ""))
		} else {
			v.invalid(at.Child("name"), volume.Name, validation.IsDNS1123Label(volume.Name))
		}
		if v.volumes[volume.Name] != nil {
			v.add(field.Duplicate(at.Child("name"), volume.Name))
		}
		// What mounts a volume that is not valid is told that it is not there.
		if len(v.errs) == before {
			v.volumes[volume.Name] = volume
		}
	}
	v.ephemeralClaims(list)
}

// ephemeralClaims: a claim that is made for a volume of the pod is named <pod>-<volume>, and not for anyone else.
func (v *podValidator) ephemeralClaims(list *field.Path) {
	if v.meta == nil || v.meta.Name == "" {
		return
	}
	created := sets.Set[string]{}
	for i := range v.spec.Volumes {
		if v.spec.Volumes[i].Ephemeral != nil {
			name := v.meta.Name + "-" + v.spec.Volumes[i].Name
			created.Insert(name)
			for _, message := range validation.IsDNS1123Subdomain(name) {
				v.add(field.Invalid(list.Index(i).Child("name"), v.spec.Volumes[i].Name,
					fmt.Sprintf("PVC name %q: %s", name, message)))
			}
		}
	}
	for i := range v.spec.Volumes {
		if claim := v.spec.Volumes[i].PersistentVolumeClaim; claim != nil && created.Has(claim.ClaimName) {
			v.add(field.Invalid(list.Index(i).Child("persistentVolumeClaim", "claimName"), claim.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume"))
		}
	}
}

// sourceCheck runs the check of a volume source that is set; there may be one only.
type sourceCheck struct {
	v     *podValidator
	at    *field.Path
	count int
}

func (c *sourceCheck) is(set bool, name string, check func(at *field.Path)) {
	if !set {
		return
	}
	if c.count++; c.count > 1 {
		c.v.add(field.Forbidden(c.at.Child(name), manyVolumesDetail))
		return
	}
	check(c.at.Child(name))
}

func (v *podValidator) volumeSource(volume *corev1.Volume, at *field.Path) {
	s, c := &volume.VolumeSource, &sourceCheck{v: v, at: at}
	c.is(s.EmptyDir != nil, "emptyDir", func(at *field.Path) {
		if limit := s.EmptyDir.SizeLimit; limit != nil && limit.Sign() < 0 {
			v.add(field.Forbidden(at.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity"))
		}
	})
	c.is(s.HostPath != nil, "hostPath", func(at *field.Path) { v.hostPath(s.HostPath, at) })
	c.is(s.GitRepo != nil, "gitRepo", func(at *field.Path) {
		v.required(s.GitRepo.Repository, at, "repository")
		v.localPath(s.GitRepo.Directory, at.Child("directory"))
	})
	c.is(s.Secret != nil, "secret", func(at *field.Path) {
		v.required(s.Secret.SecretName, at, "secretName")
		v.fileMode(s.Secret.DefaultMode, at.Child("defaultMode"))
		v.keysToPaths(s.Secret.Items, at.Child("items"))
	})
	c.is(s.ConfigMap != nil, "configMap", func(at *field.Path) {
		v.required(s.ConfigMap.Name, at, "name")
		v.fileMode(s.ConfigMap.DefaultMode, at.Child("defaultMode"))
		v.keysToPaths(s.ConfigMap.Items, at.Child("items"))
	})
	c.is(s.DownwardAPI != nil, "downwardAPI", func(at *field.Path) {
		v.fileMode(s.DownwardAPI.DefaultMode, at.Child("defaultMode"))
		for i := range s.DownwardAPI.Items {
			v.downwardFile(&s.DownwardAPI.Items[i], at)
		}
	})
	c.is(s.Projected != nil, "projected", func(at *field.Path) { v.projected(s.Projected, at) })
	c.is(s.PersistentVolumeClaim != nil, "persistentVolumeClaim", func(at *field.Path) {
		v.required(s.PersistentVolumeClaim.ClaimName, at, "claimName")
	})
	c.is(s.CSI != nil, "csi", func(at *field.Path) { v.csiVolume(s.CSI, at) })
	c.is(s.Ephemeral != nil, "ephemeral", func(at *field.Path) { v.ephemeralVolume(s.Ephemeral, at) })
	c.is(s.Image != nil, "image", func(at *field.Path) { v.imageVolume(s.Image, at) })
	v.networkVolume(s, c)
	v.cloudVolume(s, c)
	if c.count == 0 {
		v.add(field.Required(at, "must specify a volume type"))
	}
}

func (v *podValidator) hostPath(h *corev1.HostPathVolumeSource, at *field.Path) {
	if h.Path == "" {
		v.add(field.Required(at.Child("path"), ""))
		return
	}
	v.noBackstep(h.Path, at.Child("path"))
	if h.Type != nil {
		optionalEnum(v, at.Child("type"), *h.Type, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev,
			corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate,
			corev1.HostPathSocket)
	}
}

func (v *podValidator) fileMode(mode *int32, at *field.Path) {
	if mode != nil && (*mode < 0 || *mode > maxFileMode) {
		v.add(field.Invalid(at, *mode, modeDetail))
	}
}

func (v *podValidator) keysToPaths(items []corev1.KeyToPath, at *field.Path) {
	for i := range items {
		v.keyToPath(&items[i], at.Index(i))
	}
}

func (v *podValidator) keyToPath(item *corev1.KeyToPath, at *field.Path) {
	v.required(item.Key, at, "key")
	v.required(item.Path, at, "path")
	v.localPath(item.Path, at.Child("path"))
	v.fileMode(item.Mode, at.Child("mode"))
}

func (v *podValidator) downwardFile(f *corev1.DownwardAPIVolumeFile, at *field.Path) {
	v.required(f.Path, at, "path")
	v.localPath(f.Path, at.Child("path"))
	switch {
	case f.FieldRef != nil:
		v.fieldRef(f.FieldRef, volumeFieldPaths, at.Child("fieldRef"))
		if f.ResourceFieldRef != nil {
			v.add(field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		v.resourceFieldRef(f.ResourceFieldRef, at.Child("resourceFieldRef"), true)
	default:
		v.add(field.Required(at, "one of fieldRef and resourceFieldRef is required"))
	}
	v.fileMode(f.Mode, at.Child("mode"))
}

func (v *podValidator) projected(p *corev1.ProjectedVolumeSource, at *field.Path) {
	v.fileMode(p.DefaultMode, at.Child("defaultMode"))
	paths := sets.Set[string]{}
	claim := func(p string, what any, at *field.Path) {
		if p == "" {
			return
		}
		if paths.Has(p) {
			v.add(field.Invalid(at, what, duplicatePathDetail))
		}
		paths.Insert(p)
	}
	for i := range p.Sources {
		v.projection(&p.Sources[i], at.Child("sources").Index(i), claim, at)
	}
}

func (v *podValidator) projection(s *corev1.VolumeProjection, at *field.Path, claim func(string, any, *field.Path), volume *field.Path) {
	c := &sourceCheck{v: v, at: at}
	c.is(s.Secret != nil, "secret", func(at *field.Path) {
		v.required(s.Secret.Name, at, "name")
		v.keysToPaths(s.Secret.Items, at.Child("items"))
		for _, item := range s.Secret.Items {
			claim(item.Path, s.Secret.Name, volume)
		}
	})
	c.is(s.ConfigMap != nil, "configMap", func(at *field.Path) {
		v.required(s.ConfigMap.Name, at, "name")
		v.keysToPaths(s.ConfigMap.Items, at.Child("items"))
		for _, item := range s.ConfigMap.Items {
			claim(item.Path, s.ConfigMap.Name, volume)
		}
	})
	c.is(s.DownwardAPI != nil, "downwardAPI", func(at *field.Path) {
		for i := range s.DownwardAPI.Items {
			v.downwardFile(&s.DownwardAPI.Items[i], at)
			claim(s.DownwardAPI.Items[i].Path, s.DownwardAPI.Items[i].Path, volume)
		}
	})
	c.is(s.ServiceAccountToken != nil, "serviceAccountToken", func(at *field.Path) {
		v.tokenProjection(s.ServiceAccountToken, at)
		claim(s.ServiceAccountToken.Path, s.ServiceAccountToken.Path, volume)
	})
	c.is(s.ClusterTrustBundle != nil, "clusterTrustBundle", func(at *field.Path) {
		v.trustBundle(s.ClusterTrustBundle, at)
		claim(s.ClusterTrustBundle.Path, s.ClusterTrustBundle.Path, at.Child("path"))
	})
	c.is(s.PodCertificate != nil, "podCertificate", func(at *field.Path) {
		v.podCertificate(s.PodCertificate, at)
		claim(s.PodCertificate.CredentialBundlePath, s.PodCertificate.CredentialBundlePath, at.Child("credentialBundlePath"))
		claim(s.PodCertificate.KeyPath, s.PodCertificate.KeyPath, at.Child("keyPath"))
		claim(s.PodCertificate.CertificateChainPath, s.PodCertificate.CertificateChainPath, at.Child("certificateChainPath"))
	})
	if c.count == 0 {
		v.add(field.Required(at, "must specify a volume type"))
	}
}

func (v *podValidator) tokenProjection(t *corev1.ServiceAccountTokenProjection, at *field.Path) {
	switch s := t.ExpirationSeconds; {
	case s == nil:
		v.add(field.Required(at.Child("expirationSeconds"), ""))
	case *s < minTokenSeconds:
		v.add(field.Invalid(at.Child("expirationSeconds"), *s, "may not specify a duration less than 10 minutes"))
	case *s > maxTokenSeconds:
		v.add(field.Invalid(at.Child("expirationSeconds"), *s, "may not specify a duration larger than 2^32 seconds"))
	}
	if t.Path == "" {
		v.add(field.Required(at.Child("path"), ""))
		return
	}
	v.localPath(t.Path, at.Child("path"))
	if v.Pod && v.spec.ServiceAccountName == "" {
		v.add(field.Forbidden(at, "must not be specified when serviceAccountName is not set"))
	}
}

func (v *podValidator) trustBundle(b *corev1.ClusterTrustBundleProjection, at *field.Path) {
	switch byName, bySigner := b.Name != nil, b.SignerName != nil; {
	case byName && bySigner:
		v.add(field.Invalid(at, "", "only one of name and signerName may be used"))
	case byName:
		if *b.Name == "" {
			v.add(field.Required(at.Child("name"), "must be a valid object name"))
		}
		if b.LabelSelector != nil {
			v.add(field.Invalid(at.Child("labelSelector"), "", "labelSelector must be unset if name is specified"))
		}
	case bySigner:
		if *b.SignerName == "" {
			v.add(field.Required(at.Child("signerName"), "must be a valid signer name"))
		} else {
			v.signerName(*b.SignerName, at.Child("signerName"))
		}
		if b.LabelSelector != nil {
			v.addAll(metav1validation.ValidateLabelSelector(b.LabelSelector,
				metav1validation.LabelSelectorValidationOptions{}, at.Child("labelSelector")))
		}
	default:
		v.add(field.Required(at, "either name or signerName must be specified"))
	}
	if b.Path == "" {
		v.add(field.Required(at.Child("path"), ""))
		return
	}
	v.localPath(b.Path, at.Child("path"))
}

// signerName is a domain and a path in it: example.com/serving.
func (v *podValidator) signerName(name string, at *field.Path) {
	v.addAll(validation.IsDomainPrefixedPath(at, name))
}

func (v *podValidator) podCertificate(c *corev1.PodCertificateProjection, at *field.Path) {
	if c.SignerName == "" {
		v.add(field.Required(at.Child("signerName"), ""))
	} else {
		v.signerName(c.SignerName, at.Child("signerName"))
	}
	enum(v, at.Child("keyType"), c.KeyType, "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096")
	if life := c.MaxExpirationSeconds; life != nil {
		if *life < minCertificateLife {
			v.add(field.Invalid(at.Child("maxExpirationSeconds"), *life, fmt.Sprintf("if provided, maxExpirationSeconds must be >= %d", minCertificateLife)))
		} else if *life > maxCertificateLife {
			v.add(field.Invalid(at.Child("maxExpirationSeconds"), *life, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", maxCertificateLife)))
		}
	}
	if c.CredentialBundlePath == "" && c.KeyPath == "" && c.CertificateChainPath == "" {
		v.add(field.Required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	for _, p := range []struct{ name, path string }{
		{"credentialBundlePath", c.CredentialBundlePath}, {"keyPath", c.KeyPath}, {"certificateChainPath", c.CertificateChainPath},
	} {
		if p.path != "" {
			v.localPath(p.path, at.Child(p.name))
		}
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(c.UserAnnotations)) {
		size += len(key) + len(c.UserAnnotations[key])
		v.addAll(validation.IsDomainPrefixedKey(at.Child("userAnnotations"), key))
	}
	if size > maxUserAnnotations {
		v.add(field.TooLong(at.Child("userAnnotations"), "", maxUserAnnotations))
	}
}

func (v *podValidator) csiVolume(c *corev1.CSIVolumeSource, at *field.Path) {
	v.csiDriver(c.Driver, at.Child("driver"))
	if ref := c.NodePublishSecretRef; ref != nil {
		if ref.Name == "" {
			v.add(field.Required(at.Child("nodePublishSecretRef", "name"), ""))
		} else {
			v.invalid(at.Child("name"), ref.Name, validation.IsDNS1123Subdomain(ref.Name))
		}
	}
}

func (v *podValidator) csiDriver(name string, at *field.Path) {
	v.addAll(validateCSIDriverName(name, at))
}

func (v *podValidator) ephemeralVolume(e *corev1.EphemeralVolumeSource, at *field.Path) {
	if e.VolumeClaimTemplate == nil {
		v.add(field.Required(at.Child("volumeClaimTemplate"), ""))
		return
	}
	at = at.Child("volumeClaimTemplate")
	v.addAll(validateClaimTemplateMeta(&e.VolumeClaimTemplate.ObjectMeta, at.Child("metadata")))
	v.addAll(ValidatePersistentVolumeClaimSpec(&e.VolumeClaimTemplate.Spec, at.Child("spec")))
}

func (v *podValidator) imageVolume(i *corev1.ImageVolumeSource, at *field.Path) {
	// A template may leave the image to those who make pods of it.
	if v.Pod && i.Reference == "" {
		v.add(field.Required(at.Child("reference"), ""))
	}
	enum(v, at.Child("pullPolicy"), i.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

// networkVolume checks the sources that are served over a network by whoever keeps them.
func (v *podValidator) networkVolume(s *corev1.VolumeSource, c *sourceCheck) {
	c.is(s.NFS != nil, "nfs", func(at *field.Path) {
		v.required(s.NFS.Server, at, "server")
		v.required(s.NFS.Path, at, "path")
		if !path.IsAbs(s.NFS.Path) {
			v.add(field.Invalid(at.Child("path"), s.NFS.Path, "must be an absolute path"))
		}
	})
	c.is(s.ISCSI != nil, "iscsi", func(at *field.Path) {
		i := s.ISCSI
		v.addAll(validateISCSI(i.TargetPortal, i.IQN, i.Lun, at))
		auth := i.DiscoveryCHAPAuth || i.SessionCHAPAuth
		if auth && i.SecretRef == nil {
			v.add(field.Required(at.Child("secretRef"), ""))
		} else if i.SecretRef != nil {
			v.required(i.SecretRef.Name, at.Child("secretRef"), "name")
		}
		v.addAll(validateInitiator(i.InitiatorName, i.IQN, at))
	})
	c.is(s.Glusterfs != nil, "glusterfs", func(at *field.Path) {
		v.required(s.Glusterfs.EndpointsName, at, "endpoints")
		v.required(s.Glusterfs.Path, at, "path")
	})
	c.is(s.RBD != nil, "rbd", func(at *field.Path) {
		if len(s.RBD.CephMonitors) == 0 {
			v.add(field.Required(at.Child("monitors"), ""))
		}
		v.required(s.RBD.RBDImage, at, "image")
	})
	c.is(s.CephFS != nil, "cephfs", func(at *field.Path) {
		if len(s.CephFS.Monitors) == 0 {
			v.add(field.Required(at.Child("monitors"), ""))
		}
	})
	c.is(s.FC != nil, "fc", func(at *field.Path) { v.addAll(validateFC(s.FC, at)) })
	c.is(s.FlexVolume != nil, "flexVolume", func(at *field.Path) { v.addAll(validateFlex(s.FlexVolume.Driver, s.FlexVolume.Options, at)) })
	c.is(s.Flocker != nil, "flocker", func(at *field.Path) { v.addAll(validateFlocker(s.Flocker, at)) })
	c.is(s.Quobyte != nil, "quobyte", func(at *field.Path) { v.addAll(validateQuobyte(s.Quobyte, at)) })
	c.is(s.ScaleIO != nil, "scaleIO", func(at *field.Path) {
		o := s.ScaleIO
		v.required(o.Gateway, at, "gateway")
		v.required(o.System, at, "system")
		v.required(o.VolumeName, at, "volumeName")
	})
	c.is(s.StorageOS != nil, "storageos", func(at *field.Path) {
		o := s.StorageOS
		v.addAll(validateStorageOS(o.VolumeName, o.VolumeNamespace, at))
		if o.SecretRef != nil {
			v.required(o.SecretRef.Name, at.Child("secretRef"), "name")
		}
	})
}

// cloudVolume checks the disks of clouds. Volumes of these kinds are handled by CSI drivers.
func (v *podValidator) cloudVolume(s *corev1.VolumeSource, c *sourceCheck) {
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
		if s.Cinder.SecretRef != nil {
			v.required(s.Cinder.SecretRef.Name, at.Child("secretRef"), "name")
		}
	})
	c.is(s.AzureFile != nil, "azureFile", func(at *field.Path) {
		v.required(s.AzureFile.SecretName, at, "secretName")
		v.required(s.AzureFile.ShareName, at, "shareName")
	})
	c.is(s.AzureDisk != nil, "azureDisk", func(at *field.Path) { v.addAll(validateAzureDisk(s.AzureDisk, at)) })
	c.is(s.VsphereVolume != nil, "vsphereVolume", func(at *field.Path) { v.required(s.VsphereVolume.VolumePath, at, "volumePath") })
	c.is(s.PhotonPersistentDisk != nil, "photonPersistentDisk", func(at *field.Path) {
		v.required(s.PhotonPersistentDisk.PdID, at, "pdID")
	})
	c.is(s.PortworxVolume != nil, "portworxVolume", func(at *field.Path) { v.required(s.PortworxVolume.VolumeID, at, "volumeID") })
}
