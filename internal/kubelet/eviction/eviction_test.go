package eviction

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestParseAndCross(t *testing.T) {
	thresholds, err := Parse(map[string]string{"memory.available": "100Mi", "nodefs.available": "10%"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		memory, disk int64
		want         string
	}{{200 << 20, 20, ""}, {99 << 20, 20, "memory.available"}, {200 << 20, 9, "nodefs.available"}, {1, 1, "memory.available nodefs.available"}} {
		var got []string
		for _, c := range Crossed(thresholds, map[string]Observation{MemoryAvailable: {test.memory, 1 << 30}, NodeFsAvailable: {test.disk, 100}}) {
			got = append(got, c.Signal)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%v: %v", test, got)
		}
	}
	for config, want := range map[string]string{"memory.free": "unknown signal", "memory.available": "invalid quantity", "nodefs.available": "invalid percentage"} {
		value := map[string]string{"memory.free": "1", "memory.available": "-5", "nodefs.available": "101%"}[config]
		if _, err := Parse(map[string]string{config: value}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s=%s: %v", config, value, err)
		}
	}
}

func TestRank(t *testing.T) {
	pod := func(name string, priority int32, request string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{Name: "c"}}}}
		if request != "" {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(request)}
		}
		return p
	}
	var got []string
	for _, u := range Rank([]Usage{
		{Pod: pod("within", 0, "100Mi"), Used: 50 << 20}, {Pod: pod("above-a-little", 0, "10Mi"), Used: 20 << 20},
		{Pod: pod("critical", 2000000001, ""), Used: 900 << 20}, {Pod: pod("above-important", 100, ""), Used: 500 << 20},
		{Pod: pod("above-a-lot", 0, ""), Used: 80 << 20}, {Pod: pod("within-important", 100, "100Mi"), Used: 1},
	}, corev1.ResourceMemory) {
		got = append(got, u.Pod.Name)
	}
	if text := strings.Join(got, " "); text != "above-a-lot above-a-little above-important within within-important" {
		t.Errorf("they go in the order %s", text)
	}
	threshold := &Threshold{Signal: MemoryAvailable, Quantity: resource.NewQuantity(100<<20, resource.BinarySI)}
	u := &Usage{Pod: pod("p", 0, ""), Containers: map[string]int64{"c": 20 << 20}}
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 20Mi, request is 0, has larger consumption of memory. "
	if got := Message(threshold, Observation{50 << 20, 1 << 30}, u); got != want {
		t.Errorf("the message is %q", got)
	}
}
