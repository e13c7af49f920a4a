package allocation

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/proa-k8s/proa/internal/kubelet/cgroups"
)

func amounts(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

func pod(name, cpu, memory string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: amounts(cpu, memory)}}}}}
	p.Name = name
	for _, f := range change {
		f(p)
	}
	return p
}

func TestApply(t *testing.T) {
	before, declared := pod("p", "1", "1Gi"), pod("p", "2", "1Gi")
	declared.Spec.Containers[0].Image = "new"
	allocated := Of(before)
	got := allocated.Apply(declared)
	if got == declared || got.Spec.Containers[0].Resources.Requests.Cpu().String() != "1" || got.Spec.Containers[0].Image != "new" {
		t.Errorf("applied: %+v", got.Spec.Containers[0])
	}
	if declared.Spec.Containers[0].Resources.Requests.Cpu().String() != "2" {
		t.Error("the pod that was declared was changed")
	}
	if same := pod("p", "1000m", "1024Mi"); allocated.Apply(same) != same {
		t.Error("a pod that has its resources was copied")
	}
	whole := pod("p", "1", "1Gi", func(p *corev1.Pod) { p.Spec.Resources = &corev1.ResourceRequirements{Requests: amounts("2", "2Gi")} })
	more := whole.DeepCopy()
	more.Spec.Resources.Requests = amounts("4", "4Gi")
	allocated = Of(whole)
	if got := allocated.Apply(more); got.Spec.Resources.Requests.Cpu().String() != "2" || more.Spec.Resources.Requests.Cpu().String() != "4" {
		t.Errorf("the resources of the pod as a whole: %v of %v", got.Spec.Resources, more.Spec.Resources)
	}
}

func TestDecide(t *testing.T) {
	allocatable := amounts("4", "4Gi")
	others := []*corev1.Pod{pod("o", "1", "1Gi"), pod("o", "500m", "1Gi")}
	for name, test := range map[string]struct {
		desired *corev1.Pod
		want    *Pending
	}{
		"fits":            {pod("p", "2500m", "2Gi"), nil},
		"shrinks":         {pod("p", "500m", "100Mi"), nil},
		"waits for CPU":   {pod("p", "3", "1Gi"), &Pending{"Deferred", "Node didn't have enough resource: cpu, requested: 3000, used: 1500, capacity: 4000"}},
		"waits":           {pod("p", "2", "3Gi"), &Pending{"Deferred", "Node didn't have enough resource: memory, requested: 3221225472, used: 2147483648, capacity: 4294967296"}},
		"too much CPU":    {pod("p", "5", "1Gi"), &Pending{"Infeasible", "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000"}},
		"too much memory": {pod("p", "5", "4500Mi"), &Pending{"Infeasible", "Node didn't have enough capacity: memory, requested: 4718592000, capacity: 4294967296"}},
	} {
		if got := Decide(test.desired, pod("p", "1", "1Gi"), others, allocatable); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
	full := []*corev1.Pod{pod("o", "4", "5Gi")}
	if got := Decide(pod("p", "1", "500Mi"), pod("p", "1", "1Gi"), full, allocatable); got != nil {
		t.Errorf("what does not grow on a node that is too full: got %+v", got)
	}
}

func TestCompare(t *testing.T) {
	now := time.Now()
	waiting := func(name, cpu string, since time.Duration, change ...func(*corev1.Pod)) Waiting {
		desired := pod(name, cpu, "1Gi", change...)
		desired.Status.QOSClass = corev1.PodQOSBurstable
		for _, f := range change {
			f(desired)
		}
		return Waiting{Desired: desired, Allocated: pod(name, "2", "1Gi"), Since: now.Add(since)}
	}
	important := func(p *corev1.Pod) { v := int32(1000); p.Spec.Priority = &v }
	guaranteed := func(p *corev1.Pod) { p.Status.QOSClass = corev1.PodQOSGuaranteed }
	list := []Waiting{
		waiting("last", "3", 0),
		waiting("earlier", "3", -time.Minute),
		waiting("guaranteed", "3", 0, guaranteed),
		waiting("important", "3", 0, important),
		waiting("shrinking", "1", 0),
	}
	slices.SortFunc(list, Compare)
	var got []string
	for _, w := range list {
		got = append(got, w.Desired.Name)
	}
	if want := []string{"shrinking", "important", "guaranteed", "earlier", "last"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSummary(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	p := pod("p", "1", "1Gi", func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "i"}, {Name: "s", RestartPolicy: &always}}
	})
	want := `{"initContainers":[{"name":"s","resources":{}}],"containers":[{"name":"c","resources":{"requests":{"cpu":"1","memory":"1Gi"}}}],"generation":2,"error":"no"}`
	if got := Summary(p, 2, "no"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "uid")
	if s, err := Load(dir); s != nil || err != nil {
		t.Fatalf("nothing was kept: %v, %v", s, err)
	}
	p := pod("p", "1", "1Gi")
	kept := &State{Allocated: Of(p), Actuated: map[string]corev1.ResourceRequirements{"id": {Limits: amounts("2", "2Gi")}}, Cgroup: cgroups.Limits{Shares: 1024, Quota: -1, Memory: 5}}
	if err := kept.Save(dir); err != nil {
		t.Fatal(err)
	}
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	limits := s.Actuated["id"].Limits
	if s.Allocated.Apply(p) != p || !reflect.DeepEqual(s.Cgroup, kept.Cgroup) || limits.Cpu().String() != "2" {
		t.Errorf("got %+v", s)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("half a file was taken")
	}
}

func TestRecorded(t *testing.T) {
	r := corev1.ResourceRequirements{Limits: amounts("1", "1Gi"), Requests: amounts("500m", "1Gi"), Claims: []corev1.ResourceClaim{{Name: "x"}}}
	got := Read(map[string]string{Annotation: Recorded(&r)})
	if got.Limits.Cpu().String() != "1" || got.Requests.Cpu().String() != "500m" || got.Claims != nil {
		t.Errorf("got %+v", got)
	}
	if got := Read(nil); got.Limits != nil || got.Requests != nil {
		t.Errorf("without a record: %+v", got)
	}
}
