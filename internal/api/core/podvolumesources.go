package core

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The checks of sources that a pod's volume and a PersistentVolume share.

const maxCSIDriverName = 63

var (
	iqnRegexp = regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)
	euiRegexp = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	naaRegexp = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

func requireAll(at *field.Path, namesAndValues ...string) field.ErrorList {
	var errs field.ErrorList
	for i := 0; i < len(namesAndValues); i += 2 {
		if namesAndValues[i+1] == "" {
			errs = append(errs, field.Required(at.Child(namesAndValues[i]), ""))
		}
	}
	return errs
}

func validateCSIDriverName(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if len(name) > maxCSIDriverName {
		errs = append(errs, field.TooLong(at, name, maxCSIDriverName))
	}
	for _, message := range validation.IsDNS1123Subdomain(strings.ToLower(name)) {
		errs = append(errs, field.Invalid(at, name, message))
	}
	return errs
}

func validatePartition(partition int32, at *field.Path) field.ErrorList {
	if partition < 0 || partition > 255 {
		// 0 means the whole disk, and is not spoken of.
		return field.ErrorList{field.Invalid(at.Child("partition"), partition, validation.InclusiveRangeError(1, 255))}
	}
	return nil
}

func validateISCSI(portal, iqn string, lun int32, at *field.Path) field.ErrorList {
	errs := requireAll(at, "targetPortal", portal, "iqn", iqn)
	if iqn != "" {
		errs = append(errs, validateISCSIName(iqn, at.Child("iqn"))...)
	}
	if lun < 0 || lun > 255 {
		errs = append(errs, field.Invalid(at.Child("lun"), lun, validation.InclusiveRangeError(0, 255)))
	}
	return errs
}

func validateISCSIName(name string, at *field.Path) field.ErrorList {
	var ok bool
	switch {
	case strings.HasPrefix(name, "iqn"):
		ok = iqnRegexp.MatchString(name)
	case strings.HasPrefix(name, "eui"):
		ok = euiRegexp.MatchString(name)
	case strings.HasPrefix(name, "naa"):
		ok = naaRegexp.MatchString(name)
	}
	if ok {
		return nil
	}
	return field.ErrorList{field.Invalid(at, name, "must be valid format")}
}

func validateInitiator(name *string, iqn string, at *field.Path) field.ErrorList {
	if name == nil {
		return nil
	}
	if *name == "" {
		return field.ErrorList{field.Required(at.Child("initiatorname"), "")}
	}
	return validateISCSIName(*name, at.Child("initiatorname"))
}

func validateFC(fc *corev1.FCVolumeSource, at *field.Path) field.ErrorList {
	switch {
	case len(fc.TargetWWNs) == 0 && len(fc.WWIDs) == 0:
		return field.ErrorList{field.Required(at.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both")}
	case len(fc.TargetWWNs) > 0 && len(fc.WWIDs) > 0:
		return field.ErrorList{field.Invalid(at.Child("targetWWNs"), fc.TargetWWNs,
			"targetWWNs and wwids can not be specified simultaneously")}
	case len(fc.TargetWWNs) == 0:
		return nil
	case fc.Lun == nil:
		return field.ErrorList{field.Required(at.Child("lun"), "lun is required if targetWWNs is specified")}
	case *fc.Lun < 0 || *fc.Lun > 255:
		return field.ErrorList{field.Invalid(at.Child("lun"), *fc.Lun, validation.InclusiveRangeError(0, 255))}
	}
	return nil
}

// validateFlex: options in the name of Kubernetes are set by the kubelet only.
func validateFlex(driver string, options map[string]string, at *field.Path) field.ErrorList {
	errs := requireAll(at, "driver", driver)
	for _, key := range slices.Sorted(maps.Keys(options)) {
		namespace, _, _ := strings.Cut(key, "/")
		if dotted := "." + strings.ToLower(namespace); strings.HasSuffix(dotted, ".kubernetes.io") || strings.HasSuffix(dotted, ".k8s.io") {
			errs = append(errs, field.Invalid(at.Child("options").Key(key), key,
				"kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

func validateFlocker(f *corev1.FlockerVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case f.DatasetName == "" && f.DatasetUUID == "":
		errs = append(errs, field.Required(at, "one of datasetName and datasetUUID is required"))
	case f.DatasetName != "" && f.DatasetUUID != "":
		errs = append(errs, field.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
	}
	if strings.Contains(f.DatasetName, "/") {
		errs = append(errs, field.Invalid(at.Child("datasetName"), f.DatasetName, "must not contain '/'"))
	}
	return errs
}

func validateQuobyte(q *corev1.QuobyteVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case q.Registry == "":
		errs = append(errs, field.Required(at.Child("registry"),
			"must be a host:port pair or multiple pairs separated by commas"))
	case len(q.Tenant) >= 65:
		errs = append(errs, field.Required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for _, pair := range strings.Split(q.Registry, ",") {
			if host, port, ok := strings.Cut(pair, ":"); !ok || host == "" || port == "" || strings.Contains(port, ":") {
				errs = append(errs, field.Invalid(at.Child("registry"), q.Registry,
					"must be a host:port pair or multiple pairs separated by commas"))
				break
			}
		}
	}
	return append(errs, requireAll(at, "volume", q.Volume)...)
}

func validateStorageOS(name, namespace string, at *field.Path) field.ErrorList {
	errs := requireAll(at, "volumeName", name)
	if name != "" {
		for _, message := range validation.IsDNS1123Label(name) {
			errs = append(errs, field.Invalid(at.Child("volumeName"), name, message))
		}
	}
	if namespace != "" {
		for _, message := range validation.IsDNS1123Label(namespace) {
			errs = append(errs, field.Invalid(at.Child("volumeNamespace"), namespace, message))
		}
	}
	return errs
}

func validateAzureDisk(d *corev1.AzureDiskVolumeSource, at *field.Path) field.ErrorList {
	errs := requireAll(at, "diskName", d.DiskName, "diskURI", d.DataDiskURI)
	if mode := d.CachingMode; mode != nil {
		switch *mode {
		case corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite:
		default:
			errs = append(errs, field.NotSupported(at.Child("cachingMode"), *mode, []corev1.AzureDataDiskCachingMode{
				corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite}))
		}
	}
	if d.Kind == nil {
		return errs
	}
	switch *d.Kind {
	case corev1.AzureManagedDisk:
		if !strings.HasPrefix(d.DataDiskURI, "/subscriptions/") {
			errs = append(errs, field.NotSupported(at.Child("diskURI"), d.DataDiskURI, []string{
				"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"}))
		}
	case corev1.AzureDedicatedBlobDisk, corev1.AzureSharedBlobDisk:
		if !strings.HasPrefix(d.DataDiskURI, "https://") {
			errs = append(errs, field.NotSupported(at.Child("diskURI"), d.DataDiskURI, []string{
				"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"}))
		}
	default:
		errs = append(errs, field.NotSupported(at.Child("kind"), *d.Kind, []corev1.AzureDataDiskKind{
			corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk}))
	}
	return errs
}
