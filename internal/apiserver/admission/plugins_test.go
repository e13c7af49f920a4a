package admission

import (
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestLimitRanger(t *testing.T) {
	q := resource.MustParse
	listOf := func(pairs ...string) corev1.ResourceList {
		l := corev1.ResourceList{}
		for i := 0; i < len(pairs); i += 2 {
			l[corev1.ResourceName(pairs[i])] = q(pairs[i+1])
		}
		return l
	}
	limits := func(items ...corev1.LimitRangeItem) *corev1.LimitRange {
		return &corev1.LimitRange{ObjectMeta: objectMeta("dev", "limits"), Spec: corev1.LimitRangeSpec{Limits: items}}
	}
	resources := func(requests, limits corev1.ResourceList) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
		})
	}
	defaults := limits(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, DefaultRequest: listOf("cpu", "100m", "memory", "64Mi"), Default: listOf("cpu", "200m")})
	container := func(i corev1.LimitRangeItem) *corev1.LimitRange {
		i.Type = corev1.LimitTypeContainer
		return limits(i)
	}
	for name, test := range map[string]struct {
		limits *corev1.LimitRange
		pod    *corev1.Pod
		want   string
		got    corev1.ResourceRequirements
		note   string
	}{
		"defaults":          {limits: defaults, pod: pod(nil), got: corev1.ResourceRequirements{Requests: listOf("cpu", "100m", "memory", "64Mi"), Limits: listOf("cpu", "200m")}, note: "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c"},
		"keeps what is set": {limits: defaults, pod: resources(listOf("cpu", "1"), listOf("cpu", "2")), got: corev1.ResourceRequirements{Requests: listOf("cpu", "1", "memory", "64Mi"), Limits: listOf("cpu", "2")}, note: "LimitRanger plugin set: memory request for container c"},
		"limit is request":  {limits: defaults, pod: resources(nil, listOf("memory", "1Gi")), got: corev1.ResourceRequirements{Requests: listOf("cpu", "100m", "memory", "1Gi"), Limits: listOf("cpu", "200m", "memory", "1Gi")}, note: "LimitRanger plugin set: cpu request for container c; cpu limit for container c"},
		"min":               {limits: container(corev1.LimitRangeItem{Min: listOf("cpu", "100m")}), pod: resources(listOf("cpu", "50m"), nil), want: `pods "p" is forbidden: minimum cpu usage per Container is 100m, but request is 50m`},
		"min, none":         {limits: container(corev1.LimitRangeItem{Min: listOf("cpu", "100m")}), pod: pod(nil), want: "minimum cpu usage per Container is 100m.  No request is specified"},
		"max":               {limits: container(corev1.LimitRangeItem{Max: listOf("cpu", "1")}), pod: resources(nil, listOf("cpu", "2")), want: "maximum cpu usage per Container is 1, but limit is 2"},
		"max, none":         {limits: container(corev1.LimitRangeItem{Max: listOf("memory", "1Gi")}), pod: pod(nil), want: "maximum memory usage per Container is 1Gi.  No limit is specified"},
		"several":           {limits: container(corev1.LimitRangeItem{Max: listOf("cpu", "1", "memory", "1Gi")}), pod: resources(nil, listOf("cpu", "2", "memory", "2Gi")), want: "[maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, but limit is 2Gi]"},
		"ratio":             {limits: container(corev1.LimitRangeItem{MaxLimitRequestRatio: listOf("cpu", "2")}), pod: resources(listOf("cpu", "1"), listOf("cpu", "3")), want: "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"},
		"ratio kept":        {limits: container(corev1.LimitRangeItem{MaxLimitRequestRatio: listOf("cpu", "1500m")}), pod: resources(listOf("cpu", "1"), listOf("cpu", "1500m")), got: corev1.ResourceRequirements{Requests: listOf("cpu", "1"), Limits: listOf("cpu", "1500m")}},
		"pod max":           {limits: limits(corev1.LimitRangeItem{Type: corev1.LimitTypePod, Max: listOf("cpu", "1")}), pod: resources(nil, listOf("cpu", "1500m")), want: "maximum cpu usage per Pod is 1, but limit is 1500m"},
		"pod min":           {limits: limits(corev1.LimitRangeItem{Type: corev1.LimitTypePod, Min: listOf("cpu", "1")}), pod: resources(nil, listOf("cpu", "1")), got: corev1.ResourceRequirements{Requests: listOf(), Limits: listOf("cpu", "1")}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t, config(test.limits))
			err := admit(t, c, request{obj: test.pod})
			check(t, err, test.want)
			if err != nil {
				return
			}
			got := test.pod.Spec.Containers[0].Resources
			for _, pair := range [][2]corev1.ResourceList{{got.Limits, test.got.Limits}, {requestsOf(&got), requestsOf(&test.got)}} {
				if !sameList(pair[0], pair[1]) {
					t.Errorf("got %v, want %v", got, test.got)
				}
			}
			if note := test.pod.Annotations[limitRangerAnnotation]; note != test.note {
				t.Errorf("noted %q", note)
			}
		})
	}
	c := newChain(t, config(limits(corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim, Min: listOf("storage", "1Gi"), Max: listOf("storage", "2Gi")})))
	for size, want := range map[string]string{
		"1Gi": "", "512Mi": "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi", "3Gi": "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi",
	} {
		check(t, admit(t, c, request{obj: &corev1.PersistentVolumeClaim{ObjectMeta: objectMeta("dev", "c"), Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: listOf("storage", size)}}}}), want)
	}
}

func sameList(a, b corev1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, q := range a {
		if o, ok := b[name]; !ok || o.Cmp(q) != 0 {
			return false
		}
	}
	return true
}

func TestPriority(t *testing.T) {
	never := corev1.PreemptNever
	classes := []metav1.Object{
		&schedulingv1.PriorityClass{ObjectMeta: objectMeta("", "high"), Value: 1000},
		&schedulingv1.PriorityClass{ObjectMeta: objectMeta("", "meek"), Value: 5, PreemptionPolicy: &never},
	}
	for _, class := range SystemPriorityClasses() {
		classes = append(classes, class)
	}
	byDefault := append(slices.Clone(classes),
		&schedulingv1.PriorityClass{ObjectMeta: objectMeta("", "d1"), Value: 20, GlobalDefault: true}, &schedulingv1.PriorityClass{ObjectMeta: objectMeta("", "d2"), Value: 10, GlobalDefault: true})
	for name, test := range map[string]struct {
		classes  []metav1.Object
		class    string
		priority *int32
		policy   *corev1.PreemptionPolicy
		want     string
		value    int32
		named    string
		got      corev1.PreemptionPolicy
	}{
		"none":                  {classes: classes, got: corev1.PreemptLowerPriority},
		"high":                  {classes: classes, class: "high", value: 1000, named: "high", got: corev1.PreemptLowerPriority},
		"meek":                  {classes: classes, class: "meek", value: 5, named: "meek", got: corev1.PreemptNever},
		"node critical":         {classes: classes, class: "system-node-critical", value: 2000001000, named: "system-node-critical", got: corev1.PreemptLowerPriority},
		"lowest of the default": {classes: byDefault, value: 10, named: "d2", got: corev1.PreemptLowerPriority},
		"missing":               {classes: classes, class: "gone", want: `pods "p" is forbidden: no PriorityClass with name gone was found`},
		"same number":           {classes: classes, class: "high", priority: ptr.To[int32](1000), value: 1000, named: "high", got: corev1.PreemptLowerPriority},
		"another number":        {classes: classes, class: "high", priority: ptr.To[int32](1), want: "the integer value of priority (1) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name"},
		"another policy":        {classes: classes, class: "high", policy: &never, want: "the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod(func(p *corev1.Pod) {
				p.Spec.PriorityClassName, p.Spec.Priority, p.Spec.PreemptionPolicy = test.class, test.priority, test.policy
			})
			err := admit(t, newChain(t, config(test.classes...)), request{obj: p})
			check(t, err, test.want)
			if err == nil && (*p.Spec.Priority != test.value || p.Spec.PriorityClassName != test.named || *p.Spec.PreemptionPolicy != test.got) {
				t.Errorf("got %d %q %s", *p.Spec.Priority, p.Spec.PriorityClassName, *p.Spec.PreemptionPolicy)
			}
		})
	}
	c := newChain(t, config(byDefault[:len(byDefault)-1]...))
	check(t, admit(t, c, request{obj: &schedulingv1.PriorityClass{ObjectMeta: objectMeta("", "x"), GlobalDefault: true}}), "PriorityClass d1 is already marked as default. Only one default can exist")
	d1 := &schedulingv1.PriorityClass{ObjectMeta: objectMeta("", "d1"), GlobalDefault: true}
	check(t, admit(t, c, request{obj: d1, old: d1}), "")
	check(t, admit(t, c, request{obj: &schedulingv1.PriorityClass{ObjectMeta: objectMeta("", "x")}}), "")
	updated, old := pod(nil), pod(func(p *corev1.Pod) { p.Spec.Priority = ptr.To[int32](7) })
	check(t, admit(t, c, request{obj: updated, old: old}), "")
	if p := updated.Spec.Priority; p == nil || *p != 7 {
		t.Errorf("an update lost the priority: %v", p)
	}
}

func TestTolerations(t *testing.T) {
	c := config()
	c.Enable = []string{"ExtendedResourceToleration"}
	chain := newChain(t, c)
	toleration := func(key string, effect corev1.TaintEffect, seconds *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect, TolerationSeconds: seconds}
	}
	notReady, unreachable := toleration("node.kubernetes.io/not-ready", corev1.TaintEffectNoExecute, ptr.To[int64](300)), toleration("node.kubernetes.io/unreachable", corev1.TaintEffectNoExecute, ptr.To[int64](300))
	everything := corev1.Toleration{Operator: corev1.TolerationOpExists}
	forever := toleration("node.kubernetes.io/not-ready", corev1.TaintEffectNoExecute, nil)
	unscheduled := toleration("node.kubernetes.io/not-ready", corev1.TaintEffectNoSchedule, nil)
	gpu := toleration("example.org/gpu", "", nil)
	for name, test := range map[string]struct {
		has, want []corev1.Toleration
		resource  corev1.ResourceName
	}{
		"none":       {want: []corev1.Toleration{notReady, unreachable}},
		"everything": {has: []corev1.Toleration{everything}, want: []corev1.Toleration{everything}},
		"one":        {has: []corev1.Toleration{forever}, want: []corev1.Toleration{forever, unreachable}},
		"noSchedule": {has: []corev1.Toleration{unscheduled}, want: []corev1.Toleration{unscheduled, notReady, unreachable}},
		"extended":   {resource: "example.org/gpu", want: []corev1.Toleration{notReady, unreachable, gpu}},
		"own":        {resource: "cpu", want: []corev1.Toleration{notReady, unreachable}},
		"own domain": {resource: "kubernetes.io/x", want: []corev1.Toleration{notReady, unreachable}},
	} {
		p := pod(func(p *corev1.Pod) {
			p.Spec.Tolerations = test.has
			if test.resource != "" {
				p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{test.resource: resource.MustParse("1")}
			}
		})
		check(t, admit(t, chain, request{obj: p}), "")
		if !reflect.DeepEqual(p.Spec.Tolerations, test.want) {
			t.Errorf("%s: got %v", name, p.Spec.Tolerations)
		}
	}
	for range 2 { // also when it is there already
		n := &corev1.Node{ObjectMeta: objectMeta("", "n")}
		check(t, admit(t, chain, request{obj: n}), "")
		check(t, admit(t, chain, request{obj: n}), "")
		if want := []corev1.Taint{{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}}; !reflect.DeepEqual(n.Spec.Taints, want) {
			t.Errorf("got %v", n.Spec.Taints)
		}
	}
}

func TestStorage(t *testing.T) {
	class := func(name string, age time.Duration, annotations ...string) *storagev1.StorageClass {
		s := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-age)), Annotations: map[string]string{}}}
		for _, a := range annotations {
			s.Annotations[a] = "true"
		}
		return s
	}
	const isDefault = "storageclass.kubernetes.io/is-default-class"
	growing := class("growing", 0)
	growing.AllowVolumeExpansion = ptr.To(true)
	claim := func(class *string, size string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: objectMeta("dev", "c"), Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: class, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse(size)}},
		}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	}
	for name, test := range map[string]struct {
		classes []metav1.Object
		has     *string
		want    *string
	}{
		"no default":     {classes: []metav1.Object{class("a", 0)}},
		"default":        {classes: []metav1.Object{class("a", 0), class("b", 0, isDefault)}, want: ptr.To("b")},
		"beta":           {classes: []metav1.Object{class("b", 0, "storageclass.beta.kubernetes.io/is-default-class")}, want: ptr.To("b")},
		"newest":         {classes: []metav1.Object{class("a", time.Hour, isDefault), class("b", 0, isDefault), class("c", time.Minute, isDefault)}, want: ptr.To("b")},
		"first by name":  {classes: []metav1.Object{class("b", 0, isDefault), class("a", 0, isDefault)}, want: ptr.To("a")},
		"named":          {classes: []metav1.Object{class("b", 0, isDefault)}, has: ptr.To("x"), want: ptr.To("x")},
		"none on demand": {classes: []metav1.Object{class("b", 0, isDefault)}, has: ptr.To(""), want: ptr.To("")},
	} {
		c := claim(test.has, "1Gi")
		check(t, admit(t, newChain(t, config(test.classes...)), request{obj: c}), "")
		if !reflect.DeepEqual(c.Spec.StorageClassName, test.want) {
			t.Errorf("%s: got %v", name, ptr.Deref(c.Spec.StorageClassName, "nil"))
		}
		if !reflect.DeepEqual(c.Finalizers, []string{"kubernetes.io/pvc-protection"}) {
			t.Errorf("finalizers are %v", c.Finalizers)
		}
	}
	chain := newChain(t, config(growing, class("fixed", 0)))
	pv := &corev1.PersistentVolume{ObjectMeta: objectMeta("", "pv")}
	check(t, admit(t, chain, request{obj: pv}), "")
	if !reflect.DeepEqual(pv.Finalizers, []string{"kubernetes.io/pv-protection"}) {
		t.Errorf("finalizers are %v", pv.Finalizers)
	}
	const fixed = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
	check(t, admit(t, chain, request{obj: claim(ptr.To("growing"), "2Gi"), old: claim(ptr.To("growing"), "1Gi")}), "")
	check(t, admit(t, chain, request{obj: claim(ptr.To("fixed"), "2Gi"), old: claim(ptr.To("fixed"), "1Gi")}), fixed)
	check(t, admit(t, chain, request{obj: claim(ptr.To("gone"), "2Gi"), old: claim(ptr.To("gone"), "1Gi")}), fixed)
	check(t, admit(t, chain, request{obj: claim(ptr.To(""), "2Gi"), old: claim(ptr.To(""), "1Gi")}), fixed)
	check(t, admit(t, chain, request{obj: claim(ptr.To("fixed"), "1Gi"), old: claim(ptr.To("fixed"), "1Gi")}), "")
	pending := claim(ptr.To("growing"), "1Gi")
	pending.Status.Phase = corev1.ClaimPending
	check(t, admit(t, chain, request{obj: claim(ptr.To("growing"), "2Gi"), old: pending}), "Only bound persistent volume claims can be expanded")
}

func TestRuntimeClass(t *testing.T) {
	cpu := corev1.ResourceList{"cpu": resource.MustParse("100m")}
	c := newChain(t, config(
		&nodev1.RuntimeClass{ObjectMeta: objectMeta("", "plain"), Handler: "runc"},
		&nodev1.RuntimeClass{ObjectMeta: objectMeta("", "vm"), Handler: "kata", Overhead: &nodev1.Overhead{PodFixed: cpu}, Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"virt": "yes"}, Tolerations: []corev1.Toleration{{Key: "virt", Operator: corev1.TolerationOpExists}},
		}},
	))
	of := func(class string, change func(*corev1.Pod)) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Spec.RuntimeClassName = &class
			if change != nil {
				change(p)
			}
		})
	}
	check(t, admit(t, c, request{obj: of("plain", nil)}), "")
	check(t, admit(t, c, request{obj: of("gone", nil)}), `pods "p" is forbidden: pod rejected: RuntimeClass "gone" not found`)
	check(t, admit(t, c, request{obj: pod(func(p *corev1.Pod) { p.Spec.Overhead = cpu })}), "pod rejected: Overhead set without corresponding RuntimeClass defined Overhead")
	check(t, admit(t, c, request{obj: of("vm", func(p *corev1.Pod) { p.Spec.Overhead = corev1.ResourceList{"cpu": resource.MustParse("1")} })}), "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	check(t, admit(t, c, request{obj: of("vm", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"virt": "no"} })}), "conflict: runtimeClass.scheduling.nodeSelector[virt] = yes; pod.spec.nodeSelector[virt] = no")
	vm := of("vm", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} })
	check(t, admit(t, c, request{obj: vm}), "")
	if !sameList(vm.Spec.Overhead, cpu) || !reflect.DeepEqual(vm.Spec.NodeSelector, map[string]string{"virt": "yes", "disk": "ssd"}) || !slices.ContainsFunc(vm.Spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == "virt" }) {
		t.Errorf("got %+v", vm.Spec)
	}
}

func TestNetwork(t *testing.T) {
	c := config(&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "front", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}}})
	c.Enable = []string{"DenyServiceExternalIPs"}
	chain := newChain(t, c)
	ingress := &networkingv1.Ingress{ObjectMeta: objectMeta("dev", "i")}
	check(t, admit(t, chain, request{obj: ingress}), "")
	if ptr.Deref(ingress.Spec.IngressClassName, "") != "front" {
		t.Error("the default class is missing")
	}
	old := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "i", Annotations: map[string]string{"kubernetes.io/ingress.class": "x"}}}
	check(t, admit(t, chain, request{obj: old}), "")
	if old.Spec.IngressClassName != nil {
		t.Error("the annotation was overruled")
	}
	service := func(ips ...string) *corev1.Service {
		return &corev1.Service{ObjectMeta: objectMeta("dev", "s"), Spec: corev1.ServiceSpec{ExternalIPs: ips}}
	}
	check(t, admit(t, chain, request{obj: service("192.0.2.1")}), "Use of external IPs is denied by admission control.")
	check(t, admit(t, chain, request{obj: service("192.0.2.1"), old: service("192.0.2.1", "192.0.2.2")}), "")
	check(t, admit(t, chain, request{obj: service()}), "")
}
