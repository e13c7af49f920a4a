package apiserver_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestPodLife takes a pod through its endpoints.
func TestPodLife(t *testing.T) {
	e := newEnv(t, nil)
	ctx := context.Background()
	pods := e.client.CoreV1().Pods(e.namespace("a"))

	bad := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "C"}}}}
	_, err := pods.Create(ctx, bad, metav1.CreateOptions{})
	want := `Pod "bad" is invalid: [spec.containers[0].name: Invalid value: "C": a lowercase RFC 1123 label must consist of lower case ` +
		`alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex ` +
		`used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?'), spec.containers[0].image: Required value]`
	if err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}

	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i:1", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if pod.Generation != 1 || pod.Status.Phase != corev1.PodPending || pod.Status.QOSClass != corev1.PodQOSBurstable ||
		pod.Spec.SchedulerName != "default-scheduler" || !strings.HasPrefix(pod.Name, "p-") {
		t.Errorf("created %+v", pod)
	}

	pod.Spec.Containers[0].Image = "i:2"
	pod.Status.Phase = corev1.PodRunning
	if pod, err = pods.Update(ctx, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if pod.Generation != 2 || pod.Status.Phase != corev1.PodPending {
		t.Errorf("updated: generation %d, phase %s", pod.Generation, pod.Status.Phase)
	}
	moved := pod.DeepCopy()
	moved.Spec.Hostname = "h"
	if _, err = pods.Update(ctx, moved, metav1.UpdateOptions{}); err == nil ||
		!strings.Contains(err.Error(), "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`") {
		t.Errorf("error %v", err)
	}

	pod.Status.Phase, pod.Status.PodIP = corev1.PodRunning, "10.0.0.1"
	pod.Spec.Containers[0].Image = "i:3"
	if pod, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if pod.Generation != 2 || pod.Spec.Containers[0].Image != "i:2" || len(pod.Status.PodIPs) != 1 {
		t.Errorf("status updated: %+v", pod)
	}

	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "i"}, TargetContainerName: "c"}}
	if pod, err = pods.UpdateEphemeralContainers(ctx, pod.Name, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if pod.Generation != 3 || pod.Spec.EphemeralContainers[0].ImagePullPolicy != corev1.PullAlways {
		t.Errorf("ephemeral containers: %+v", pod.Spec.EphemeralContainers)
	}
	resize := []byte(`{"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}`)
	if pod, err = pods.Patch(ctx, pod.Name, types.StrategicMergePatchType, resize, metav1.PatchOptions{}, "resize"); err != nil {
		t.Fatal(err)
	}
	if pod.Generation != 4 || pod.Spec.Containers[0].Resources.Requests.Cpu().String() != "2" || pod.Status.PodIP != "10.0.0.1" {
		t.Errorf("resized: %+v", pod)
	}

	list := e.do(http.MethodGet, "/api/v1/namespaces/a/pods?fieldSelector=status.phase%3DRunning", "", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
	var table metav1.Table
	if err := json.Unmarshal(list.body, &table); err != nil || len(table.Rows) != 1 || table.Rows[0].Cells[1] != "0/1" || table.Rows[0].Cells[2] != "Running" {
		t.Errorf("%v: %s", err, list.body)
	}
	// Nobody runs it: it has no node.
	if err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if left, err := pods.List(ctx, metav1.ListOptions{}); err != nil || len(left.Items) != 0 {
		t.Errorf("%v, %d pods are left", err, len(left.Items))
	}
}

// TestJobSelector: the selector of a job is made of what the server gives it.
func TestJobSelector(t *testing.T) {
	e := newEnv(t, nil)
	jobs := e.client.BatchV1().Jobs(e.namespace("a"))
	job, err := jobs.Create(context.Background(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{GenerateName: "j-"}, Spec: batchv1.JobSpec{
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	labels := job.Spec.Template.Labels
	if job.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] != string(job.UID) || labels["job-name"] != job.Name || job.UID == "" {
		t.Errorf("selector %v, labels %v", job.Spec.Selector, labels)
	}
	table := e.do(http.MethodGet, "/apis/batch/v1/namespaces/a/jobs", "", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
	var got metav1.Table
	if err := json.Unmarshal(table.body, &got); err != nil || len(got.Rows) != 1 {
		t.Fatalf("%v: %s", err, table.body)
	}
	if cells := got.Rows[0].Cells; !slices.Equal(cells[1:4], []any{"Running", "0/1", ""}) {
		t.Errorf("cells %v", cells)
	}
}
