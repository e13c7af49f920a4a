package core

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func resourceOf(s string) *resource.Quantity {
	q := resource.MustParse(s)
	return &q
}

func TestPersistentVolume(t *testing.T) {
	r := PersistentVolume()
	const rest = "accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}"
	checkVerdicts[*corev1.PersistentVolume](t, r, []verdict{
		{"host path", "spec: {" + rest + ", hostPath: {path: /data}}", nil},
		{"nothing", "spec: {}", []string{
			"spec.accessModes: Required value", "spec.capacity: Required value",
			`spec.capacity: Unsupported value: null: supported values: "storage"`, "spec: Required value: must specify a volume type"}},
		{"two sources", "spec: {" + rest + ", hostPath: {path: /data}, nfs: {server: s, path: /}}", []string{
			"spec.nfs: Forbidden: may not specify more than 1 volume type"}},
		{"no size", "spec: {accessModes: [ReadWriteOnce], capacity: {storage: 0}, hostPath: {path: /data}}", []string{
			`spec.capacity[storage]: Invalid value: "0": must be greater than zero`}},
		{"mode", "spec: {accessModes: [Write], capacity: {storage: 1Gi}, hostPath: {path: /data}}", []string{
			`spec.accessModes: Unsupported value: "Write": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"`}},
		{"policy", "spec: {" + rest + ", persistentVolumeReclaimPolicy: Burn, hostPath: {path: /data}}", []string{
			`spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": supported values: "Delete", "Recycle", "Retain"`}},
		{"recycle all", "spec: {" + rest + ", persistentVolumeReclaimPolicy: Recycle, hostPath: {path: /}}", []string{
			"spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"}},
		{"local without node", "spec: {" + rest + ", local: {path: /x}}", []string{
			"spec.nodeAffinity: Required value: Local volume requires node affinity"}},
		{"secret of csi", "spec: {" + rest + ", csi: {driver: d, volumeHandle: h, nodePublishSecretRef: {name: a, namespace: a.b}}}", []string{
			`spec.csi.nodePublishSecretRef.namespace: Invalid value: "a.b": must not contain dots`}},
		{"csi", "spec: {" + rest + ", csi: {}}", []string{"spec.csi.driver: Required value", "spec.csi.volumeHandle: Required value"}},
	})
	pv, _ := create[*corev1.PersistentVolume](t, r, "metadata: {name: v}\nspec: {"+rest+", hostPath: {path: /data}}")
	want := []any{"v", "1Gi", "RWO", "Retain", "Pending", "", "", "<unset>", "", "<unknown>", "Filesystem"}
	if row := r.Row(pv); !slices.Equal(row, want) {
		t.Errorf("row %v\nwant %v", row, want)
	}
	moved := pv.DeepCopy()
	moved.Spec.HostPath.Path = "/elsewhere"
	checkErrors(t, r.ValidateUpdate(context.Background(), moved, pv),
		"spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n...")
	zone := func(key string) *corev1.PersistentVolume {
		next := pv.DeepCopy()
		next.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}}}}}}
		return next
	}
	checkErrors(t, r.ValidateUpdate(context.Background(), zone("topology.kubernetes.io/zone"), zone("failure-domain.beta.kubernetes.io/zone")))
	checkErrors(t, r.ValidateUpdate(context.Background(), zone("other"), zone("failure-domain.beta.kubernetes.io/zone")), "nodeAffinity: Invalid value: ...")
	block := pv.DeepCopy()
	mode := corev1.PersistentVolumeBlock
	block.Spec.VolumeMode = &mode
	checkErrors(t, r.ValidateUpdate(context.Background(), block, pv), `volumeMode: Invalid value: "Block": field is immutable`)
	available := pv.DeepCopy()
	available.Status.Phase = corev1.VolumeAvailable
	available.Spec.HostPath.Path = "/elsewhere"
	before := pv.Status.LastPhaseTransitionTime.DeepCopy()
	r.Subresources[0].Strategy.PrepareUpdate(context.Background(), available, pv)
	if available.Spec.HostPath.Path != "/data" || available.Status.LastPhaseTransitionTime.Equal(before) {
		t.Errorf("%+v", available)
	}
}

func TestPersistentVolumeClaim(t *testing.T) {
	r := PersistentVolumeClaim()
	const good = "accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}"
	checkVerdicts[*corev1.PersistentVolumeClaim](t, r, []verdict{
		{"good", "spec: {" + good + "}", nil},
		{"nothing", "spec: {}", []string{
			"spec.accessModes: Required value: at least 1 access mode is required", "spec.resources[storage]: Required value"}},
		{"no size", "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 0}}}", []string{
			`spec.resources[storage]: Invalid value: "0": must be greater than zero`}},
		{"alone", "spec: {accessModes: [ReadWriteOncePod, ReadOnlyMany], resources: {requests: {storage: 1Gi}}}", []string{
			"spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"}},
		{"source", "spec: {" + good + ", dataSourceRef: {kind: Thing, name: x}}", []string{
			"spec.dataSource: Invalid value: \"Thing\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
			"spec.dataSourceRef: Invalid value: \"Thing\": must be 'PersistentVolumeClaim' when referencing the default apiGroup"}},
		{"source of no kind that was ever served", "spec: {" + good + ", dataSource: {kind: Thing, apiGroup: example.com, name: x}}", nil},
	})
	claim, _ := create[*corev1.PersistentVolumeClaim](t, r, "metadata: {name: c}\nspec: {"+good+"}")
	if row, want := r.Row(claim), []any{"c", "Pending", "", "", "", "", "<unset>", "<unknown>", "Filesystem"}; !slices.Equal(row, want) {
		t.Errorf("row %v\nwant %v", row, want)
	}
	bind := claim.DeepCopy()
	bind.Spec.VolumeName = "v"
	checkErrors(t, r.ValidateUpdate(context.Background(), bind, claim))
	bind.Status.Phase = corev1.ClaimBound
	grow := bind.DeepCopy()
	grow.Spec.Resources.Requests[corev1.ResourceStorage] = *resourceOf("2Gi")
	checkErrors(t, r.ValidateUpdate(context.Background(), grow, bind))
	unbound := claim.DeepCopy()
	unbound.Spec.Resources.Requests[corev1.ResourceStorage] = *resourceOf("2Gi")
	checkErrors(t, r.ValidateUpdate(context.Background(), unbound, claim),
		"spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n...")
	bind.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: *resourceOf("1Gi")}
	shrink := bind.DeepCopy()
	shrink.Spec.Resources.Requests[corev1.ResourceStorage] = *resourceOf("500Mi")
	checkErrors(t, r.ValidateUpdate(context.Background(), shrink, bind),
		"spec.resources.requests.storage: Forbidden: field can not be less than status.capacity")

	annotated := claim.DeepCopy()
	annotated.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: "fast"}
	for _, test := range []struct {
		class, annotation string
		want              []string
	}{
		{"fast", "fast", nil},
		{"fast", "", nil},
		{"slow", "fast", []string{"spec: Forbidden: spec is immutable..."}},
		{"", "slow", []string{`metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: "slow": field is immutable`}},
	} {
		next := annotated.DeepCopy()
		delete(next.Annotations, corev1.BetaStorageClassAnnotation)
		if test.annotation != "" {
			next.Annotations[corev1.BetaStorageClassAnnotation] = test.annotation
		}
		if test.class != "" {
			next.Spec.StorageClassName = &test.class
		}
		checkErrors(t, r.ValidateUpdate(context.Background(), next, annotated), test.want...)
	}
	attributes := claim.DeepCopy()
	attributes.Spec.VolumeAttributesClassName = new(string)
	*attributes.Spec.VolumeAttributesClassName = "gold"
	checkErrors(t, r.ValidateUpdate(context.Background(), attributes, claim), "spec: Forbidden: spec is immutable...")

	status := claim.DeepCopy()
	status.Status.AllocatedResources = corev1.ResourceList{"cpu": *resourceOf("1"), "storage": *resourceOf("-1")}
	status.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{"storage": "Growing"}
	checkErrors(t, r.Subresources[0].Strategy.ValidateUpdate(context.Background(), status, claim),
		`status.allocatedResourceStatus: Unsupported value: "storage": supported values: "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending"`,
		`status.allocatedResources: Unsupported value: "cpu": supported values: "storage"`,
		`status.allocatedResources[storage]: Invalid value: -1: must be a valid resource quantity`)
}
