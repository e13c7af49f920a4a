package plugins_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
)

// volumes makes Volumes that see the given objects.
func volumes(t *testing.T, objects ...runtime.Object) *plugins.Volumes {
	t.Helper()
	client := fake.NewClientset()
	f := informers.NewSharedInformerFactory(client, 0)
	v := plugins.NewVolumes(client, f)
	for _, o := range objects {
		var informer cache.SharedIndexInformer
		switch o.(type) {
		case *corev1.PersistentVolume:
			informer = f.Core().V1().PersistentVolumes().Informer()
		case *corev1.PersistentVolumeClaim:
			informer = f.Core().V1().PersistentVolumeClaims().Informer()
		case *storagev1.StorageClass:
			informer = f.Storage().V1().StorageClasses().Informer()
		case *storagev1.CSINode:
			informer = f.Storage().V1().CSINodes().Informer()
		case *storagev1.CSIDriver:
			informer = f.Storage().V1().CSIDrivers().Informer()
		case *storagev1.CSIStorageCapacity:
			informer = f.Storage().V1().CSIStorageCapacities().Informer()
		}
		if err := informer.GetIndexer().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func class(name, provisioner string, change ...func(*storagev1.StorageClass)) *storagev1.StorageClass {
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)}
	for _, f := range change {
		f(c)
	}
	return c
}

func immediate(c *storagev1.StorageClass) {
	c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingImmediate)
}

func claim(name, class string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), Annotations: map[string]string{}},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func boundTo(volume string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeName = volume
		c.Annotations["pv.kubernetes.io/bind-completed"] = "yes"
	}
}

func volume(name, class string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable},
	}
	for _, f := range change {
		f(v)
	}
	return v
}

func local(node string) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}}
	}
}

func csi(driver string) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: v.Name}
	}
}

func mounts(claims ...string) podOption {
	return func(p *corev1.Pod) {
		for _, name := range claims {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
		}
	}
}

func TestVolumeBinding(t *testing.T) {
	const (
		elsewhere = "never: node(s) didn't match PersistentVolume's node affinity"
		none      = "never: node(s) didn't find available persistent volumes to bind"
	)
	ephemeral := spec(func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}}
	})
	inZone := func(c *storagev1.StorageClass) {
		c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: zone, Values: []string{"b"}}}}}
	}
	capacity := func(size string) *storagev1.CSIStorageCapacity {
		return &storagev1.CSIStorageCapacity{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, StorageClassName: "fast", Capacity: ptr.To(resource.MustParse(size)),
			NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{zone: "a"}},
		}
	}
	driver := &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "example.com"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: ptr.To(true)}}
	tests := map[string]struct {
		objects []runtime.Object
		pod     *corev1.Pod
		want    map[string]string
	}{
		"no claims": {nil, pod("p"), map[string]string{}},
		"no claim":  {nil, pod("p", mounts("data")), map[string]string{"": `never: persistentvolumeclaim "data" not found`}},
		"an ephemeral one": {nil, pod("p", ephemeral), map[string]string{
			"": `never: waiting for ephemeral volume controller to create the persistentvolumeclaim "p-scratch"`}},
		"an ephemeral one of somebody else": {[]runtime.Object{claim("p-scratch", "")}, pod("p", ephemeral), map[string]string{
			"": "never: PVC default/p-scratch was not created for pod default/p (pod is not owner)"}},
		"lost": {[]runtime.Object{claim("data", "", boundTo("v"), func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimLost })}, pod("p", mounts("data")), map[string]string{
			"": `never: persistentvolumeclaim "data" bound to non-existent persistentvolume "v"`}},
		"going": {[]runtime.Object{claim("data", "", func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = ptr.To(metav1.Now()) })}, pod("p", mounts("data")), map[string]string{
			"": `never: persistentvolumeclaim "data" is being deleted`}},
		"unbound": {[]runtime.Object{claim("data", "fast"), class("fast", "example.com", immediate)}, pod("p", mounts("data")), map[string]string{
			"": "never: pod has unbound immediate PersistentVolumeClaims"}},
		"without class": {[]runtime.Object{claim("data", "")}, pod("p", mounts("data")), map[string]string{"": "never: pod has unbound immediate PersistentVolumeClaims"}},
		"bound":         {[]runtime.Object{claim("data", "", boundTo("v")), volume("v", "", local("a1"))}, pod("p", mounts("data")), map[string]string{"a2": elsewhere, "b1": elsewhere, "none": elsewhere}},
		"bound to what is gone": {[]runtime.Object{claim("data", "", boundTo("v"))}, pod("p", mounts("data")), func() map[string]string {
			const gone = "never: node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
			return map[string]string{"a1": gone, "a2": gone, "b1": gone, "none": gone}
		}()},
		"waiting, volumes made by hand": {
			[]runtime.Object{claim("data", "local"), class("local", "kubernetes.io/no-provisioner"), volume("v", "local", local("a2"))}, pod("p", mounts("data")),
			map[string]string{"a1": none, "b1": none, "none": none},
		},
		"waiting, one volume for two": {
			[]runtime.Object{claim("data", "local"), claim("more", "local"), class("local", "kubernetes.io/no-provisioner"), volume("v", "local", local("a2"))}, pod("p", mounts("data", "more")),
			map[string]string{"a1": none, "a2": none, "b1": none, "none": none},
		},
		"waiting, to be made": {[]runtime.Object{claim("data", "fast"), class("fast", "example.com")}, pod("p", mounts("data")), map[string]string{}},
		"waiting, to be made in a zone": {
			[]runtime.Object{claim("data", "fast"), class("fast", "example.com", inZone)}, pod("p", mounts("data")), map[string]string{"a1": none, "a2": none, "none": none},
		},
		"waiting, being made on a node": {
			[]runtime.Object{claim("data", "fast", func(c *corev1.PersistentVolumeClaim) { c.Annotations["volume.kubernetes.io/selected-node"] = "a1" }), class("fast", "example.com")},
			pod("p", mounts("data")), map[string]string{"a2": none, "b1": none, "none": none},
		},
		"waiting, with enough room in a zone": {
			[]runtime.Object{claim("data", "fast"), class("fast", "example.com"), driver, capacity("2Gi")}, pod("p", mounts("data")),
			map[string]string{"b1": "never: node(s) did not have enough free storage", "none": "never: node(s) did not have enough free storage"},
		},
		"waiting, with too little room": {
			[]runtime.Object{claim("data", "fast"), class("fast", "example.com"), driver, capacity("1Mi")}, pod("p", mounts("data")),
			func() map[string]string {
				const full = "never: node(s) did not have enough free storage"
				return map[string]string{"a1": full, "a2": full, "b1": full, "none": full}
			}(),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			equal(t, verdicts(t, plugins.VolumeBinding(volumes(t, test.objects...)), state(zones(), nil), test.pod), test.want)
		})
	}
}

// TestVolumeIsReservedOnce: a volume that was chosen for one claim is not chosen for another before the first shows it.
func TestVolumeIsReservedOnce(t *testing.T) {
	v := volumes(t, claim("data", "local"), claim("more", "local"), class("local", "kubernetes.io/no-provisioner"), volume("v", "local", local("a1")))
	plugin, s := plugins.VolumeBinding(v), state(zones(), nil)
	r, status := plugin.Reserve(&framework.Cycle{State: s, Pod: framework.NewPod(pod("p", mounts("data")))}, s.GetNode("a1"))
	if r == nil || status != nil {
		t.Fatal(status)
	}
	if got := verdicts(t, plugin, s, pod("q", mounts("more"))); got["a1"] == "" {
		t.Error("the volume was promised twice")
	}
	r.Unreserve()
	if got := verdicts(t, plugin, s, pod("q", mounts("more"))); got["a1"] != "" {
		t.Errorf("the volume was not given back: %v", got)
	}
}

func TestVolumePlugins(t *testing.T) {
	zoned := func(value string) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) { v.Labels[zone] = value }
	}
	limit := func(node string, count int32) *storagev1.CSINode {
		return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{
			Name: "example.com", Allocatable: &storagev1.VolumeNodeResources{Count: &count}}}}}
	}
	once := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	disk := func(readOnly bool) podOption {
		return spec(func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{IQN: "iqn", ReadOnly: readOnly}}}}
		})
	}
	const (
		wrongZone = "never: node(s) had no available volume zone"
		tooMany   = "node(s) exceed max volume count"
		inUse     = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
	)
	data := []runtime.Object{
		claim("one", "", boundTo("v1")), volume("v1", "", csi("example.com")), claim("two", "", boundTo("v2")), volume("v2", "", csi("example.com")),
		claim("three", "fast"), class("fast", "example.com"), limit("a1", 1), limit("a2", 2),
	}
	tests := map[string]struct {
		plugin  func(*plugins.Volumes) *framework.Plugin
		objects []runtime.Object
		pods    []*corev1.Pod
		pod     *corev1.Pod
		want    map[string]string
	}{
		"zone":                   {plugins.VolumeZone, []runtime.Object{claim("data", "", boundTo("v")), volume("v", "", zoned("a"))}, nil, pod("p", mounts("data")), map[string]string{"b1": wrongZone}},
		"both zones":             {plugins.VolumeZone, []runtime.Object{claim("data", "", boundTo("v")), volume("v", "", zoned("a__b"))}, nil, pod("p", mounts("data")), map[string]string{}},
		"no zone":                {plugins.VolumeZone, []runtime.Object{claim("data", "", boundTo("v")), volume("v", "")}, nil, pod("p", mounts("data")), map[string]string{}},
		"limit":                  {plugins.NodeVolumeLimits, data, []*corev1.Pod{pod("q", on("a1"), mounts("one"))}, pod("p", mounts("two")), map[string]string{"a1": tooMany}},
		"limit, the same volume": {plugins.NodeVolumeLimits, data, []*corev1.Pod{pod("q", on("a1"), mounts("one"))}, pod("p", mounts("one")), map[string]string{}},
		"limit, unbound claims":  {plugins.NodeVolumeLimits, data, nil, pod("p", mounts("two", "three")), map[string]string{"a1": tooMany}},
		"one pod only": {plugins.VolumeRestrictions, []runtime.Object{claim("data", "", once)}, []*corev1.Pod{pod("q", on("a1"), mounts("data"))}, pod("p", mounts("data")),
			map[string]string{"a1": inUse, "a2": inUse, "b1": inUse, "none": inUse}},
		"many pods":                {plugins.VolumeRestrictions, []runtime.Object{claim("data", "")}, []*corev1.Pod{pod("q", on("a1"), mounts("data"))}, pod("p", mounts("data")), map[string]string{}},
		"the same disk":            {plugins.VolumeRestrictions, nil, []*corev1.Pod{pod("q", on("a1"), disk(true))}, pod("p", disk(false)), map[string]string{"a1": "node(s) had no available disk"}},
		"the same disk, read only": {plugins.VolumeRestrictions, nil, []*corev1.Pod{pod("q", on("a1"), disk(true))}, pod("p", disk(true)), map[string]string{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			equal(t, verdicts(t, test.plugin(volumes(t, test.objects...)), state(zones(), test.pods), test.pod), test.want)
		})
	}
}
