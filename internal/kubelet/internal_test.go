package kubelet

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/kubelet/plan"
)

func TestAdmit(t *testing.T) {
	facts := &nodeFacts{
		node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "a"}},
			Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{"example.com/foo": resource.MustParse("2")}}},
		allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi"),
			corev1.ResourcePods: resource.MustParse("3")},
		unsafeSysctls: []string{"net.core.*"},
		pressure:      func(corev1.NodeConditionType) bool { return false },
	}
	pod := func(change ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
		for _, f := range change {
			f(p)
		}
		return p
	}
	cpu := func(q string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(q)}
		}
	}
	asks := func(name corev1.ResourceName) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{name: resource.MustParse("2")}
		}
	}
	port := func(ip string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80, HostIP: ip, Protocol: "TCP"}}
		}
	}
	sysctl := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}
		}
	}
	for name, test := range map[string]struct {
		pod    *corev1.Pod
		others []*corev1.Pod
		want   string
	}{
		"fits":             {pod(cpu("1500m")), []*corev1.Pod{pod(cpu("500m"))}, ""},
		"too much cpu":     {pod(cpu("1600m")), []*corev1.Pod{pod(cpu("500m"))}, "OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu, requested: 1600, used: 500, capacity: 2000"},
		"extended":         {pod(asks("example.com/foo")), nil, ""},
		"too much of it":   {pod(asks("example.com/foo")), []*corev1.Pod{pod(asks("example.com/foo"))}, "OutOfexample.com/foo: Pod was rejected: Node didn't have enough resource: example.com/foo, requested: 2, used: 2, capacity: 2"},
		"not yet known":    {pod(asks("example.com/bar")), nil, ""},
		"not extended":     {pod(asks("hugepages-2Mi")), nil, "OutOfhugepages-2Mi: Pod was rejected: Node didn't have enough resource: hugepages-2Mi, requested: 2, used: 0, capacity: 0"},
		"too many pods":    {pod(), []*corev1.Pod{pod(), pod(), pod()}, "OutOfpods: Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"},
		"critical":         {pod(func(p *corev1.Pod) { v := int32(2000000000); p.Spec.Priority = &v }), []*corev1.Pod{pod(), pod(), pod()}, ""},
		"selector":         {pod(func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "a"} }), nil, ""},
		"other selector":   {pod(func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "b"} }), nil, "NodeAffinity: Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"port":             {pod(port("")), []*corev1.Pod{pod(port("127.0.0.1"))}, "NodePorts: Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		"port elsewhere":   {pod(port("127.0.0.2")), []*corev1.Pod{pod(port("127.0.0.1"))}, ""},
		"sysctl":           {pod(sysctl("kernel.shm_rmid_forced")), nil, ""},
		"sysctl allowed":   {pod(sysctl("net.core.somaxconn")), nil, ""},
		"sysctl forbidden": {pod(sysctl("kernel.msgmax")), nil, `SysctlForbidden: Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted`},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if why := admit(test.pod, test.others, facts); why != nil {
				got = why.Reason + ": " + why.Message
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAdmitUnderPressure(t *testing.T) {
	asks := func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Mi")}
	}
	tolerates := func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists}}
	}
	critical := func(p *corev1.Pod) { v := int32(2000000000); p.Spec.Priority = &v }
	const memory, disk = corev1.NodeMemoryPressure, corev1.NodeDiskPressure
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		short  []corev1.NodeConditionType
		want   string
	}{
		"memory":              {func(*corev1.Pod) {}, []corev1.NodeConditionType{memory}, "Pod was rejected: The node had condition: [MemoryPressure]. "},
		"memory, asks":        {asks, []corev1.NodeConditionType{memory}, ""},
		"memory, tolerates":   {tolerates, []corev1.NodeConditionType{memory}, ""},
		"memory, critical":    {critical, []corev1.NodeConditionType{memory}, ""},
		"disk, asks":          {asks, []corev1.NodeConditionType{disk}, "Pod was rejected: The node had condition: [DiskPressure]. "},
		"both":                {tolerates, []corev1.NodeConditionType{memory, disk}, "Pod was rejected: The node had condition: [MemoryPressure DiskPressure]. "},
		"neither":             {func(*corev1.Pod) {}, nil, ""},
		"processes":           {asks, []corev1.NodeConditionType{corev1.NodePIDPressure}, "Pod was rejected: The node had condition: [PIDPressure]. "},
		"processes, critical": {critical, []corev1.NodeConditionType{corev1.NodePIDPressure}, ""},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
		test.change(pod)
		got := ""
		if why := admit(pod, nil, &nodeFacts{
			allocatable: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("3")},
			pressure:    func(c corev1.NodeConditionType) bool { return slices.Contains(test.short, c) },
		}); why != nil {
			got = why.Message
			if why.Reason != "Evicted" {
				t.Errorf("%s: the reason is %s", name, why.Reason)
			}
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestStatusPatch(t *testing.T) {
	before := &corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: "other", Status: "True"}, {Type: corev1.PodReady, Status: "False"}}}
	after := before.DeepCopy()
	after.Phase, after.Conditions[1].Status = corev1.PodRunning, "True"
	data, err := statusPatch("the-uid", before, after)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(data); !strings.Contains(got, `"uid":"the-uid"`) || !strings.Contains(got, `"phase":"Running"`) || strings.Contains(got, `{"status":"True","type":"other"`) {
		t.Errorf("the patch is %s", got)
	}
}

func TestOverLimit(t *testing.T) {
	limit := resource.MustParse("1Mi")
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}, {Name: "free", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("4Mi")}}}},
	}}
	for want, used := range map[string]storage{
		"": {volumes: map[string]int64{"v": 1 << 20}, containers: map[string]int64{"c": 3 << 20}},
		`Usage of EmptyDir volume "v" exceeds the limit "1Mi". `:                        {volumes: map[string]int64{"v": 1<<20 + 1}},
		`Container c exceeded its local ephemeral storage limit "4Mi". `:                {containers: map[string]int64{"c": 5 << 20}},
		"Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ": {volumes: map[string]int64{"free": 2 << 20}, containers: map[string]int64{"c": 2 << 20, "sidecar": 1 << 20}},
	} {
		if got := overLimit(pod, used); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !limitsStorage(pod) || limitsStorage(&corev1.Pod{}) {
		t.Error("which pods are measured is wrong")
	}
}

func TestWritableLayers(t *testing.T) {
	const table = `1 0 8:1 / / rw - ext4 /dev/vda rw
2 1 0:50 / /run/x/k8s.io/aaa/rootfs rw,relatime shared:1 - overlay overlay rw,lowerdir=/s/1/fs,upperdir=%s,workdir=/s/2/work
3 1 0:51 / /run/x/k8s.io/readonly/rootfs rw - overlay overlay ro,lowerdir=/s/1/fs:/s/2/fs
`
	dir := t.TempDir()
	data := bytes.Repeat([]byte("proa"), 1<<18)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(dir, "a"), data, 0o644))
	must(os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(fmt.Sprintf(table, dir)), mountinfo.FSTypeFilter("overlay"))
	must(err)
	upper := upperDirsOf(mounts)
	if len(upper) != 1 || upper["aaa"] != dir {
		t.Fatalf("found %v", upper)
	}
	pod := &corev1.Pod{}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", ContainerID: "containerd://aaa", State: running}, {Name: "ended", ContainerID: "containerd://ccc"}}
	layers, ok := writableLayers(pod, upper)
	if !ok || len(layers) != 1 || layers["c"] < 1<<20 || layers["c"] >= 2<<20 {
		t.Errorf("measured %v, %v: a file with two names counts once", layers, ok)
	}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "sidecar", ContainerID: "containerd://bbb", State: running}}
	if _, ok := writableLayers(pod, upper); ok {
		t.Error("a running container without a known layer is not noticed")
	}
}

func TestStaticPodManifest(t *testing.T) {
	good := "apiVersion: v1\nkind: Pod\nmetadata: {name: Web}\nspec: {containers: [{name: c, image: i}]}\n"
	a, err := staticPod("/m/a.yaml", []byte(good), "node")
	if err != nil {
		t.Fatal(err)
	}
	if a.Name != "web-node" || a.Namespace != "default" || a.Spec.NodeName != "node" || a.Spec.RestartPolicy != corev1.RestartPolicyAlways || len(a.UID) != 32 {
		t.Errorf("the pod is %v", a)
	}
	if b, err := staticPod("/m/a.yaml", []byte(good+"\n"), "node"); err != nil || b.UID == a.UID {
		t.Errorf("a changed manifest gives the same pod: %v", err)
	}
	for name, text := range map[string]string{
		"unknown field": good + "extra: 1\n", "other kind": strings.Replace(good, "Pod", "Node", 1), "no name": strings.Replace(good, "name: Web", "", 1),
		"refers to the API": strings.Replace(good, "{containers", "{volumes: [{name: v, secret: {secretName: s}}], containers", 1), "no YAML": "{",
	} {
		if _, err := staticPod("/m/a.yaml", []byte(text), "node"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestBelowUse(t *testing.T) {
	limited := func(id, limit string) plan.Update {
		return plan.Update{ID: id, Container: &corev1.Container{Name: id, Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}}}}
	}
	for name, test := range map[string]struct {
		resize        plan.Resize
		before, after int64
		used          map[string]int64
		want          string
	}{
		"room":              {plan.Resize{Updates: []plan.Update{limited("a", "100")}, Narrow: true}, 200, 100, map[string]int64{"a": 100}, ""},
		"container":         {plan.Resize{Updates: []plan.Update{limited("a", "100")}}, 200, 100, map[string]int64{"a": 101}, `attempting to set container "a" memory limit (100) below current usage (101)`},
		"pod":               {plan.Resize{Narrow: true}, 200, 100, map[string]int64{"a": 60, "b": 60}, "attempting to set pod memory limit (100) below current usage (120)"},
		"pod not narrowed":  {plan.Resize{}, 200, 100, map[string]int64{"a": 150}, ""},
		"pod not unbounded": {plan.Resize{Narrow: true}, 200, -1, map[string]int64{"a": 300}, ""},
	} {
		var sum int64
		for _, v := range test.used {
			sum += v
		}
		got := ""
		if err := belowUse(&test.resize, test.before, test.after, test.used, sum); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
