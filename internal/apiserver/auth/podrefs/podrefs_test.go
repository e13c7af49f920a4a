package podrefs

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func local(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

// everything uses every way in which a pod can refer to something.
func everything() *corev1.Pod {
	env := func(n string) ([]corev1.EnvVar, []corev1.EnvFromSource) {
		return []corev1.EnvVar{
				{Name: "plain", Value: "x"},
				{Name: "a", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local(n + "-env")}}},
				{Name: "b", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local(n + "-env-cm")}}},
				{Name: "c", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			}, []corev1.EnvFromSource{
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local(n + "-from")}},
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local(n + "-from-cm")}},
			}
	}
	var containers []corev1.Container
	for _, n := range []string{"c", "i", "e"} {
		e, f := env(n)
		containers = append(containers, corev1.Container{Env: e, EnvFrom: f})
	}
	secret := func(name string) *corev1.LocalObjectReference { return ptr.To(local(name)) }
	sources := []corev1.VolumeSource{
		{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		{Secret: &corev1.SecretVolumeSource{SecretName: "vol"}},
		{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("vol-cm")}},
		{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: local("proj")}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("proj-cm")}},
		}}},
		{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}},
		{Ephemeral: &corev1.EphemeralVolumeSource{}},
		{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: secret("csi")}},
		{CSI: &corev1.CSIVolumeSource{}},
		{AzureFile: &corev1.AzureFileVolumeSource{SecretName: "azure"}},
		{CephFS: &corev1.CephFSVolumeSource{SecretRef: secret("ceph")}},
		{Cinder: &corev1.CinderVolumeSource{SecretRef: secret("cinder")}},
		{FlexVolume: &corev1.FlexVolumeSource{SecretRef: secret("flex")}},
		{ISCSI: &corev1.ISCSIVolumeSource{SecretRef: secret("iscsi")}},
		{RBD: &corev1.RBDVolumeSource{SecretRef: secret("rbd")}},
		{ScaleIO: &corev1.ScaleIOVolumeSource{SecretRef: secret("scaleio")}},
		{StorageOS: &corev1.StorageOSVolumeSource{SecretRef: secret("storageos")}},
		{StorageOS: &corev1.StorageOSVolumeSource{}},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "account",
			ImagePullSecrets:   []corev1.LocalObjectReference{local("pull"), local("")},
			Containers:         containers[:1],
			InitContainers:     containers[1:2],
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Env: containers[2].Env, EnvFrom: containers[2].EnvFrom,
			}}},
			ResourceClaims: []corev1.PodResourceClaim{{ResourceClaimName: ptr.To("gpu")}, {ResourceClaimTemplateName: ptr.To("t")}},
		},
		Status: corev1.PodStatus{ResourceClaimStatuses: []corev1.PodResourceClaimStatus{{Name: "x", ResourceClaimName: ptr.To("made")}}},
	}
	for _, s := range sources {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: s})
	}
	return pod
}

func TestVisit(t *testing.T) {
	names := map[Kind][]string{}
	paths := map[string]string{}
	if !Visit(everything(), true, func(kind Kind, name string, path *field.Path) bool {
		names[kind] = append(names[kind], name)
		paths[name] = path.String()
		return true
	}) {
		t.Error("the end was not reached")
	}
	for kind, want := range map[Kind][]string{
		ServiceAccount: {"account"},
		Secret: {"azure", "c-env", "c-from", "ceph", "cinder", "csi", "e-env", "e-from", "flex", "i-env", "i-from", "iscsi", "proj",
			"pull", "rbd", "scaleio", "storageos", "vol"},
		ConfigMap:             {"c-env-cm", "c-from-cm", "e-env-cm", "e-from-cm", "i-env-cm", "i-from-cm", "proj-cm", "vol-cm"},
		PersistentVolumeClaim: {"claim", "p-v"},
		ResourceClaim:         {"gpu", "made"},
	} {
		got := slices.Sorted(slices.Values(names[kind]))
		if !slices.Equal(got, want) {
			t.Errorf("kind %d: got %v, want %v", kind, got, want)
		}
	}
	for name, want := range map[string]string{
		"account": "spec.serviceAccountName",
		"pull":    "spec.imagePullSecrets[0].name",
		"i-env":   "spec.initContainers[0].env[1].valueFrom.secretKeyRef.name",
		"e-from":  "spec.ephemeralContainers[0].envFrom[0].secretRef.name",
		"vol":     "spec.volumes[1].secret.secretName",
		"proj":    "spec.volumes[3].projected.sources[1].secret.name",
		"csi":     "spec.volumes[6].csi.nodePublishSecretRef.name",
		"made":    "status.resourceClaimStatuses[0].resourceClaimName",
	} {
		if paths[name] != want {
			t.Errorf("%s is at %s, not %s", name, paths[name], want)
		}
	}
	// Without paths the same is seen, and fn can end it anywhere.
	total := 0
	Visit(everything(), false, func(_ Kind, _ string, path *field.Path) bool {
		if path != nil {
			t.Error("a path that nobody asked for")
		}
		total++
		return true
	})
	for stop := 1; stop <= total; stop++ {
		n := 0
		if Visit(everything(), false, func(Kind, string, *field.Path) bool { n++; return n < stop }) || n != stop {
			t.Errorf("asked to stop after %d, stopped after %d", stop, n)
		}
	}
}

func TestVisitVolumeSecrets(t *testing.T) {
	ref := func(namespace, name string) *corev1.SecretReference {
		return &corev1.SecretReference{Namespace: namespace, Name: name}
	}
	for name, test := range map[string]struct {
		source corev1.PersistentVolumeSource
		want   []string
	}{
		"none": {source: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{}}},
		"csi": {source: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			NodePublishSecretRef: ref("a", "publish"), NodeStageSecretRef: ref("", "stage"), NodeExpandSecretRef: ref("b", "expand"), ControllerPublishSecretRef: ref("a", "controller"),
		}}, want: []string{"a/publish", "claims/stage", "b/expand"}},
		"azure":   {source: corev1.PersistentVolumeSource{AzureFile: &corev1.AzureFilePersistentVolumeSource{SecretName: "s", SecretNamespace: ptr.To("z")}}, want: []string{"z/s"}},
		"ceph":    {source: corev1.PersistentVolumeSource{CephFS: &corev1.CephFSPersistentVolumeSource{SecretRef: ref("", "s")}}, want: []string{"claims/s"}},
		"cinder":  {source: corev1.PersistentVolumeSource{Cinder: &corev1.CinderPersistentVolumeSource{SecretRef: ref("", "s")}}, want: []string{"claims/s"}},
		"flex":    {source: corev1.PersistentVolumeSource{FlexVolume: &corev1.FlexPersistentVolumeSource{SecretRef: ref("", "s")}}, want: []string{"claims/s"}},
		"iscsi":   {source: corev1.PersistentVolumeSource{ISCSI: &corev1.ISCSIPersistentVolumeSource{SecretRef: ref("", "s")}}, want: []string{"claims/s"}},
		"rbd":     {source: corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{SecretRef: ref("x", "s")}}, want: []string{"x/s"}},
		"scaleio": {source: corev1.PersistentVolumeSource{ScaleIO: &corev1.ScaleIOPersistentVolumeSource{SecretRef: ref("", "s")}}, want: []string{"claims/s"}},
	} {
		pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
			ClaimRef: &corev1.ObjectReference{Namespace: "claims", Name: "c"}, PersistentVolumeSource: test.source,
		}}
		var got []string
		VisitVolumeSecrets(pv, func(namespace, name string) { got = append(got, namespace+"/"+name) })
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
