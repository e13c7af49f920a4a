package apiserver_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podJSON is a pod of about 4 KB.
func podJSON(name string) string {
	pod := corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}, Annotations: map[string]string{"pad": strings.Repeat("x", 2500)}},
		Spec:       corev1.PodSpec{NodeName: "node"},
	}
	for i := range 3 {
		c := corev1.Container{Name: "c" + strconv.Itoa(i), Image: "registry.example.com/image:v1", Ports: []corev1.ContainerPort{{Name: "p" + strconv.Itoa(i), ContainerPort: int32(80 + i)}}}
		for j := range 5 {
			c.Env = append(c.Env, corev1.EnvVar{Name: "VARIABLE_" + strconv.Itoa(j), Value: "some value"})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	data, err := json.Marshal(pod)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func BenchmarkCreatePods(b *testing.B) {
	e := newEnv(b, nil)
	e.namespace("ns")
	b.ReportAllocs()
	for i := range b.N {
		w := newDiscard()
		e.call("POST", "/api/v1/namespaces/ns/pods", podJSON("p"+strconv.Itoa(i)), "", w)
		if w.code != 201 {
			b.Fatal(w.code)
		}
	}
}

func BenchmarkPatchPodStatus(b *testing.B) {
	e := newEnv(b, nil)
	e.namespace("ns")
	e.call("POST", "/api/v1/namespaces/ns/pods", podJSON("p"), "", newDiscard())
	b.ReportAllocs()
	for i := range b.N {
		r := `{"status":{"phase":"Running","message":"` + strconv.Itoa(i) + `"}}`
		a := e.must(200, "PATCH", "/api/v1/namespaces/ns/pods/p/status", r, "Content-Type: application/strategic-merge-patch+json")
		_ = a
	}
}
