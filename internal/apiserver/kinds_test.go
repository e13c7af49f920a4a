package apiserver_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applyautoscalingv1 "k8s.io/client-go/applyconfigurations/autoscaling/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/store"
)

func deployment(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "image"}}},
			},
		},
	}
}

func TestScale(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	deployments := e.client.AppsV1().Deployments("ns")
	if _, err := deployments.Create(ctx, deployment("d"), metav1.CreateOptions{FieldManager: "maker"}); err != nil {
		t.Fatal(err)
	}
	scale, err := deployments.GetScale(ctx, "d", metav1.GetOptions{})
	if err != nil || scale.Spec.Replicas != 1 || scale.Status.Selector != "app=d" || scale.UID == "" {
		t.Fatalf("scale %+v, %v", scale, err)
	}
	scale.Spec.Replicas = 3
	if scale, err = deployments.UpdateScale(ctx, "d", scale, metav1.UpdateOptions{FieldManager: "scaler"}); err != nil || scale.Spec.Replicas != 3 {
		t.Fatalf("scaled %+v, %v", scale, err)
	}
	d, err := deployments.Get(ctx, "d", metav1.GetOptions{})
	if err != nil || *d.Spec.Replicas != 3 || d.Generation != 2 {
		t.Fatalf("scaled %+v, %v", d, err)
	}
	var scaler, maker bool
	for _, m := range d.ManagedFields {
		fields := m.FieldsV1.GetRawString()
		scaler = scaler || m.Manager == "scaler" && m.Subresource == "scale" && m.APIVersion == "apps/v1" && fields == `{"f:spec":{"f:replicas":{}}}`
		maker = maker || m.Manager == "maker" && !strings.Contains(fields, "f:replicas")
	}
	if !scaler || !maker {
		t.Errorf("managed fields %+v", d.ManagedFields)
	}
	_, err = deployments.Apply(ctx, applyappsv1.Deployment("d", "ns").WithSpec(applyappsv1.DeploymentSpec().WithReplicas(5)), metav1.ApplyOptions{FieldManager: "other"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "scaler" with subresource "scale" using apps/v1: .spec.replicas`) {
		t.Errorf("an apply against the scale: %v", err)
	}
	stale := scale.DeepCopy()
	if scale, err = deployments.ApplyScale(ctx, "d", applyautoscalingv1.Scale().WithName("d").WithSpec(applyautoscalingv1.ScaleSpec().WithReplicas(4)), metav1.ApplyOptions{FieldManager: "a", Force: true}); err != nil || scale.Spec.Replicas != 4 {
		t.Errorf("applied scale %+v, %v", scale, err)
	}
	if _, err = deployments.UpdateScale(ctx, "d", stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a stale scale: %v", err)
	}
	var patched autoscalingv1.Scale
	e.must(200, "PATCH", "/apis/apps/v1/namespaces/ns/deployments/d/scale", `{"spec":{"replicas":0}}`, "Content-Type: application/merge-patch+json").json(t, &patched)
	if patched.Kind != "Scale" || patched.APIVersion != "autoscaling/v1" || patched.Spec.Replicas != 0 {
		t.Errorf("patched %+v", patched)
	}
	a := e.must(422, "PATCH", "/apis/apps/v1/namespaces/ns/deployments/d/scale", `{"spec":{"replicas":-1}}`, "Content-Type: application/merge-patch+json")
	if s := a.status(t); s.Message != `Scale.autoscaling "d" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0` {
		t.Errorf("%s", s.Message)
	}
}

// TestVersions wants one object in all versions of its resource, whatever the encoding.
func TestVersions(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(contentType, func(t *testing.T) {
			config := rest.CopyConfig(e.config)
			config.ContentType = contentType
			client := kubernetes.NewForConfigOrDie(config)
			old := &appsv1beta1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "old"}}
			old.Spec.Template = deployment("old").Spec.Template
			made, err := client.AppsV1beta1().Deployments("ns").Create(ctx, old, metav1.CreateOptions{})
			if err != nil || made.Spec.Selector == nil || made.Spec.Selector.MatchLabels["app"] != "old" {
				t.Fatalf("made %+v, %v", made, err)
			}
			now, err := client.AppsV1().Deployments("ns").Get(ctx, "old", metav1.GetOptions{})
			if err != nil || now.UID != made.UID || now.ResourceVersion != made.ResourceVersion || now.Spec.Selector.MatchLabels["app"] != "old" {
				t.Fatalf("now %+v, %v", now, err)
			}
			w, err := client.AppsV1beta1().Deployments("ns").Watch(ctx, metav1.ListOptions{ResourceVersion: made.ResourceVersion})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			_, err = client.AppsV1().Deployments("ns").Apply(ctx, applyappsv1.Deployment("old", "ns").WithLabels(map[string]string{"a": "b"}), metav1.ApplyOptions{FieldManager: "new"})
			if err != nil {
				t.Fatal(err)
			}
			if ev := next(t, w); ev.Object.(*appsv1beta1.Deployment).Labels["a"] != "b" {
				t.Errorf("event %+v", ev)
			}
			list, err := client.ExtensionsV1beta1().Deployments("ns").List(ctx, metav1.ListOptions{})
			if err != nil || len(list.Items) != 1 || list.Items[0].UID != made.UID || list.Items[0].ResourceVersion == "" {
				t.Errorf("listed %+v, %v", list, err)
			}
			if err := client.AppsV1().Deployments("ns").Delete(ctx, "old", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
	a := e.must(200, "GET", "/apis/apps/v1beta1/namespaces/ns/deployments", "")
	if len(a.Header["Warning"]) != 1 || !strings.Contains(a.Header["Warning"][0], "apps/v1beta1 Deployment is deprecated") {
		t.Errorf("warnings %v", a.Header["Warning"])
	}
	a = e.must(400, "POST", "/apis/apps/v1/namespaces/ns/deployments", `{"apiVersion":"apps/v1beta1","kind":"Deployment","metadata":{"name":"x"}}`)
	if s := a.status(t); s.Message != "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)" {
		t.Errorf("%s", s.Message)
	}
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e"}, EventTime: metav1.NowMicro(), ReportingController: "example.com/c", ReportingInstance: "i",
		Action: "A", Reason: "R", Type: "Normal", Regarding: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: "ns"}, Note: "hello",
	}
	if _, err := e.client.EventsV1().Events("ns").Create(ctx, event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := e.client.CoreV1().Events("ns").Get(ctx, "e", metav1.GetOptions{}); err != nil || got.Message != "hello" || got.InvolvedObject.Name != "p" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestGracefulDeletion wants a pod on a node to live on for its grace period, which can only become shorter.
// What a deletion does to dependents by default depends on the kind and on the version of the request.
func TestDefaultPropagation(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	for path, orphans := range map[string]bool{
		"apps/v1": false, "apps/v1beta2": true, "apps/v1beta1": true, "extensions/v1beta1": true,
	} {
		if _, err := e.client.AppsV1().Deployments("ns").Create(ctx, deployment("d"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		e.must(200, "DELETE", "/apis/"+path+"/namespaces/ns/deployments/d", "")
		left, err := e.client.AppsV1().Deployments("ns").Get(ctx, "d", metav1.GetOptions{})
		switch {
		case !orphans && !apierrors.IsNotFound(err):
			t.Errorf("%s: left is %+v, %v", path, left, err)
		case orphans && (err != nil || len(left.Finalizers) != 1 || left.Finalizers[0] != metav1.FinalizerOrphanDependents):
			t.Errorf("%s: %+v, %v", path, left.ObjectMeta, err)
		case orphans: // No garbage collector runs here.
			e.must(200, "PATCH", "/apis/apps/v1/namespaces/ns/deployments/d", `{"metadata":{"finalizers":null}}`, "Content-Type: application/merge-patch+json")
		}
	}
}

func TestGracefulDeletion(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	pods := e.client.CoreV1().Pods("ns")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: deployment("p").Spec.Template.Spec}
	pod.Spec.NodeName = "node"
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	del := func(seconds *int64) *corev1.Pod {
		t.Helper()
		if err := pods.Delete(ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: seconds}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		p, err := pods.Get(ctx, "p", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := del(nil)
	if first == nil || first.DeletionTimestamp == nil || *first.DeletionGracePeriodSeconds != 30 {
		t.Fatalf("deleted %+v", first)
	}
	if p := del(new(int64(60))); p.ResourceVersion != first.ResourceVersion {
		t.Errorf("the grace period became longer: %+v", p.ObjectMeta)
	}
	if p := del(new(int64(10))); *p.DeletionGracePeriodSeconds != 10 || !p.DeletionTimestamp.Before(first.DeletionTimestamp) {
		t.Errorf("the grace period did not become shorter: %+v", p.ObjectMeta)
	}
	if p := del(new(int64(0))); p != nil {
		t.Errorf("still there: %+v", p)
	}
	pod.Spec.NodeName = ""
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var gone corev1.Pod
	e.must(200, "DELETE", "/api/v1/namespaces/ns/pods/p", "").json(t, &gone)
	if gone.Kind != "Pod" || gone.Name != "p" || del(nil) != nil {
		t.Errorf("a pod on no node: %+v", gone)
	}
}

// TestHandlers wants what is registered for virtual resources and subresources called, admitted.
func TestHandlers(t *testing.T) {
	c := &chain{}
	e := newEnv(t, func(config *apiserver.Config) {
		config.Admission = c
		config.Creaters = map[string]apiserver.CreateFunc{
			"pods/binding": func(_ context.Context, ns, name string, obj runtime.Object, o *metav1.CreateOptions) (runtime.Object, error) {
				if b := obj.(*corev1.Binding); ns != "ns" || name != "p" || b.Target.Name != "node" || len(o.DryRun) != 1 {
					return nil, errors.New("wrong arguments")
				}
				return &metav1.Status{Status: metav1.StatusSuccess}, nil
			},
		}
		config.Connectors = map[string]http.Handler{"pods/log": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("log of " + r.URL.Path))
		})}
	})
	e.namespace("ns")
	a := e.must(201, "POST", "/api/v1/namespaces/ns/pods/p/binding?dryRun=All", `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"name":"node"}}`)
	if s := a.status(t); s.Status != "Success" || s.Code != 201 {
		t.Errorf("bound %s", a.body)
	}
	a = e.must(200, "GET", "/api/v1/namespaces/ns/pods/p/log?follow=true", "")
	if string(a.body) != "log of /api/v1/namespaces/ns/pods/p/log" {
		t.Errorf("%s", a.body)
	}
	e.must(400, "GET", "/api/v1/namespaces/ns/pods/p/log?dryRun=All", "")
	if got := strings.Join(c.seen[2:], "\n"); got != "admit CREATE pods ns p binding\nvalidate CREATE pods ns p binding\nadmit CONNECT pods ns p log\nvalidate CONNECT pods ns p log" {
		t.Errorf("seen\n%s", got)
	}
}

// TestCompanions wants what belongs to an object written with it, completed objects, and guards that are tried again.
func TestCompanions(t *testing.T) {
	guard, deleted := 0, ""
	e := newEnv(t, func(config *apiserver.Config) {
		config.Companions = map[schema.GroupResource]apiserver.Companion{
			{Resource: "configmaps"}: func(_ context.Context, obj, old runtime.Object) ([]store.Op, error) {
				if obj == nil {
					deleted = old.(*corev1.ConfigMap).Name
					return nil, nil
				}
				cm := obj.(*corev1.ConfigMap)
				cm.Labels = map[string]string{"completed": "yes"}
				if old != nil {
					return nil, nil
				}
				guard++
				if guard == 1 {
					return []store.Op{{Key: "/registry/other", Value: []byte("x"), ModRevision: 99}}, nil
				}
				return []store.Op{{Key: "/registry/other", Value: []byte("x")}}, nil
			},
		}
	})
	e.namespace("ns")
	var cm corev1.ConfigMap
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("x")).json(t, &cm)
	if cm.Labels["completed"] != "yes" || guard != 2 {
		t.Errorf("made %+v after %d calls", cm, guard)
	}
	a := e.must(200, "PATCH", "/api/v1/namespaces/ns/configmaps/x", `{"data":{"a":"b"}}`, "Content-Type: "+string(types.MergePatchType))
	a.json(t, &cm)
	if cm.Data["a"] != "b" || cm.Labels["completed"] != "yes" {
		t.Errorf("updated %+v", cm)
	}
	if e.must(200, "DELETE", "/api/v1/namespaces/ns/configmaps/x", ""); deleted != "x" {
		t.Error("the companion does not know of the deletion")
	}
}
