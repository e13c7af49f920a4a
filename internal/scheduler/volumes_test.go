package scheduler_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller/controllertest"
)

// TestVolumeIsBoundFirst: a claim that waits for its first consumer gets the volume of the node that the pod goes to, and
// the pod is bound when the claim is.
func TestVolumeIsBoundFirst(t *testing.T) {
	c, ctx := start(t, nil), context.Background()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	_, err := c.Admin.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "local"}, Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.node(t, "n1", "2")
	c.node(t, "n2", "2")
	c.create(t, pod("p", "", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	}))
	const help = " preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
	c.waitMessage(t, "p", `0/2 nodes are available: persistentvolumeclaim "data" not found.`+help)
	claim, err := c.Admin.CoreV1().PersistentVolumeClaims("default").Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("local"), AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: size}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.waitMessage(t, "p", "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."+help)
	v, err := c.Admin.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "v"},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: "local", AccessModes: modes, Capacity: size,
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/data"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n2"}}}}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v.Status.Phase = corev1.VolumeAvailable
	if _, err := c.Admin.CoreV1().PersistentVolumes().UpdateStatus(ctx, v, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	v = controllertest.Wait(t, c.Cluster, "the volume to be given to the claim", func(ctx context.Context) (*corev1.PersistentVolume, error) {
		return c.Admin.CoreV1().PersistentVolumes().Get(ctx, "v", metav1.GetOptions{})
	}, func(v *corev1.PersistentVolume) bool { return v.Spec.ClaimRef != nil })
	if v.Spec.ClaimRef.Name != "data" || v.Spec.ClaimRef.UID != claim.UID {
		t.Errorf("%+v", v.Spec.ClaimRef)
	}
	if p, err := c.Admin.CoreV1().Pods("default").Get(ctx, "p", metav1.GetOptions{}); err != nil || p.Spec.NodeName != "" {
		t.Errorf("on %q before its volume is bound, %v", p.Spec.NodeName, err)
	}
	// What the controller of volumes does.
	claim.Spec.VolumeName = "v"
	metav1.SetMetaDataAnnotation(&claim.ObjectMeta, "pv.kubernetes.io/bind-completed", "yes")
	if _, err := c.Admin.CoreV1().PersistentVolumeClaims("default").Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if p := c.waitBound(t, "p"); p.Spec.NodeName != "n2" {
		t.Errorf("on %q", p.Spec.NodeName)
	}
}
