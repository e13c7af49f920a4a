package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"
)

const revision = "deployment.kubernetes.io/revision"

// template makes pods that run a program of the test image.
func template(labels map[string]string, args ...string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: testPodSpec(args...)}
}

// otherImage is a template of the same pods with another image, or with one that no node has.
func otherImage(t corev1.PodTemplateSpec, image string) corev1.PodTemplateSpec {
	t = *t.DeepCopy()
	c := &t.Spec.Containers[0]
	c.Image, c.Args, c.ReadinessProbe, c.ImagePullPolicy = image, nil, nil, corev1.PullNever
	return t
}

func (s *session) deployment(name string, replicas int32, change func(*appsv1.Deployment)) *appsv1.Deployment {
	s.t.Helper()
	labels := map[string]string{"name": name}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels, "pause"),
	}}
	if change != nil {
		change(d)
	}
	d, err := s.client.AppsV1().Deployments(s.namespace).Create(s.t.Context(), d, metav1.CreateOptions{})
	must(s.t, err)
	return d
}

func (s *session) changeDeployment(name string, change func(*appsv1.Deployment)) *appsv1.Deployment {
	s.t.Helper()
	api := s.client.AppsV1().Deployments(s.namespace)
	return update(s.t, func() (*appsv1.Deployment, error) { return api.Get(s.t.Context(), name, metav1.GetOptions{}) }, change,
		func(d *appsv1.Deployment) (*appsv1.Deployment, error) {
			return api.Update(s.t.Context(), d, metav1.UpdateOptions{})
		})
}

// complete waits until a deployment has rolled out.
func (s *session) complete(name string) (d *appsv1.Deployment) {
	s.t.Helper()
	s.eventually("the roll-out of "+name, func() (err error) {
		d, err = s.client.AppsV1().Deployments(s.namespace).Get(s.t.Context(), name, metav1.GetOptions{})
		if n := d.Status; err == nil && (n.ObservedGeneration < d.Generation || n.UpdatedReplicas != *d.Spec.Replicas || n.Replicas != *d.Spec.Replicas || n.AvailableReplicas != *d.Spec.Replicas) {
			err = fmt.Errorf("%+v", n)
		}
		return err
	})
	return d
}

// replicaSet makes a replica set whose pods a deployment of the same name selects.
func (s *session) replicaSet(name, owner string, replicas int32) *appsv1.ReplicaSet {
	s.t.Helper()
	labels := map[string]string{"name": owner, "set": name}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: map[string]string{revision: "3546343826724305832"}}, Spec: appsv1.ReplicaSetSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template(labels, "pause"),
	}}
	rs, err := s.client.AppsV1().ReplicaSets(s.namespace).Create(s.t.Context(), rs, metav1.CreateOptions{})
	must(s.t, err)
	return rs
}

// setsOf gives the replica sets of a deployment.
func (s *session) setsOf(d *appsv1.Deployment) map[string]*appsv1.ReplicaSet {
	s.t.Helper()
	list, err := s.client.AppsV1().ReplicaSets(s.namespace).List(s.t.Context(), metav1.ListOptions{LabelSelector: "name=" + d.Name})
	must(s.t, err)
	sets := map[string]*appsv1.ReplicaSet{}
	for i := range list.Items {
		if metav1.IsControlledBy(&list.Items[i], d) {
			sets[list.Items[i].Name] = &list.Items[i]
		}
	}
	return sets
}

// [sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones; deployment should delete old replica
// sets.
func TestDeploymentAdopts(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	old := s.replicaSet("test-rolling-update-controller", "adopting", 1)
	s.readyPods("name=adopting", 1)
	d := s.deployment("adopting", 1, func(d *appsv1.Deployment) {
		d.Spec.Template = otherImage(d.Spec.Template, "proa.local/hello:1")
	})
	d = s.complete(d.Name)
	if d.Annotations[revision] != "3546343826724305833" {
		t.Errorf("revision %s", d.Annotations[revision])
	}
	sets := s.setsOf(d)
	if rs := sets[old.Name]; len(sets) != 2 || rs == nil || *rs.Spec.Replicas != 0 {
		t.Errorf("replica sets %+v", sets)
	}
	s.changeDeployment(d.Name, func(d *appsv1.Deployment) { d.Spec.RevisionHistoryLimit = ptr.To(int32(0)) })
	s.eventually("the end of the old replica set", func() error {
		if sets := s.setsOf(d); len(sets) != 1 || sets[old.Name] != nil {
			return fmt.Errorf("replica sets %+v", sets)
		}
		return nil
	})
}

// [sig-apps] Deployment RecreateDeployment should delete old pods and create new ones: no new one is there before the old ones
// have ended.
func TestDeploymentRecreate(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.deployment("recreated", 2, func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType })
	s.complete("recreated")
	running := map[string]bool{}
	for _, p := range s.podsOf("name=recreated") {
		running[p.Name] = true
	}
	list, err := s.client.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	w, err := s.client.CoreV1().Pods(s.namespace).Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	must(t, err)
	defer w.Stop()
	s.changeDeployment("recreated", func(d *appsv1.Deployment) {
		d.Spec.Template = otherImage(d.Spec.Template, "proa.local/hello:1")
	})
	s.complete("recreated")
	for added := 0; added < 2; {
		e := <-w.ResultChan()
		p, ok := e.Object.(*corev1.Pod)
		switch {
		case !ok:
			t.Fatalf("event %+v", e)
		case e.Type == watch.Deleted || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
			delete(running, p.Name)
		case e.Type == watch.Added:
			if added++; len(running) > 0 {
				t.Errorf("pod %s was made while %v were running", p.Name, running)
			}
		}
	}
}

// [sig-apps] Deployment deployment should support rollover.
func TestDeploymentRollover(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	old := s.replicaSet("test-rollover-controller", "rollover", 1)
	s.readyPods("name=rollover", 1)
	d := s.deployment("rollover", 1, func(d *appsv1.Deployment) {
		d.Spec.Template = otherImage(d.Spec.Template, "registry.local/nobody:has")
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: ptr.To(intstr.FromInt32(0)), MaxSurge: ptr.To(intstr.FromInt32(1))}
	})
	var stuck string
	s.eventually("a pod that can't start", func() error {
		for name, rs := range s.setsOf(d) {
			if name != old.Name && rs.Status.Replicas == 1 {
				stuck = name
				return nil
			}
		}
		return fmt.Errorf("replica sets %+v", s.setsOf(d))
	})
	s.changeDeployment(d.Name, func(d *appsv1.Deployment) {
		d.Spec.Template = otherImage(d.Spec.Template, "proa.local/hello:1")
	})
	s.complete(d.Name)
	for name, rs := range s.setsOf(d) {
		if replaced := name == old.Name || name == stuck; replaced != (*rs.Spec.Replicas == 0) {
			t.Errorf("replica set %s has %d replicas", name, *rs.Spec.Replicas)
		}
	}
}

// [sig-apps] Deployment deployment should support proportional scaling.
func TestDeploymentProportions(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	d := s.deployment("proportional", 5, func(d *appsv1.Deployment) {
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: ptr.To(intstr.FromInt32(2)), MaxUnavailable: ptr.To(intstr.FromInt32(1))}
	})
	s.complete(d.Name)
	s.changeDeployment(d.Name, func(d *appsv1.Deployment) {
		d.Spec.Template = otherImage(d.Spec.Template, "registry.local/nobody:has")
	})
	sizes := func(want map[bool]int32) {
		t.Helper()
		s.eventually("the sizes of the replica sets", func() error {
			got := map[bool]int32{} // by whether the image is one that nobody has
			for _, rs := range s.setsOf(d) {
				got[strings.Contains(rs.Spec.Template.Spec.Containers[0].Image, "nobody")] = *rs.Spec.Replicas
			}
			if got[false] != want[false] || got[true] != want[true] {
				return fmt.Errorf("%v, want %v", got, want)
			}
			return nil
		})
	}
	sizes(map[bool]int32{false: 4, true: 3})
	s.changeDeployment(d.Name, func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To(int32(8)) })
	sizes(map[bool]int32{false: 6, true: 4})
}

// [sig-apps] Deployment should run the lifecycle of a Deployment; should validate Deployment Status endpoints.
func TestDeploymentLifecycle(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, api := t.Context(), s.client.AppsV1().Deployments(s.namespace)
	selector := metav1.ListOptions{LabelSelector: "test-deployment-static=true"}
	w, err := api.Watch(ctx, selector)
	must(t, err)
	defer w.Stop()
	d := s.deployment("lifecycle", 1, func(d *appsv1.Deployment) { d.Labels["test-deployment-static"] = "true" })
	expect[*appsv1.Deployment](t, w, watch.Added, nil)
	expect(t, w, watch.Modified, func(d *appsv1.Deployment) bool { return d.Status.ReadyReplicas == 1 })
	_, err = api.Patch(ctx, d.Name, mergePatch, []byte(`{"metadata":{"labels":{"test-deployment":"patched"}},"spec":{"replicas":2,"template":{"spec":{"terminationGracePeriodSeconds":1}}}}`), metav1.PatchOptions{})
	must(t, err)
	expect(t, w, watch.Modified, func(d *appsv1.Deployment) bool {
		return d.Labels["test-deployment"] == "patched" && d.Status.ReadyReplicas == 2 && d.Status.UpdatedReplicas == 2
	})
	all, err := s.client.AppsV1().Deployments("").List(ctx, selector)
	must(t, err)
	if len(all.Items) != 1 || *all.Items[0].Spec.Replicas != 2 || *all.Items[0].Spec.Template.Spec.TerminationGracePeriodSeconds != 1 {
		t.Errorf("all %+v", all.Items)
	}
	d = s.complete(d.Name)
	_, err = api.Patch(ctx, d.Name, mergePatch, []byte(`{"metadata":{"annotations":{"patched":"status"}},"spec":{"replicas":5},"status":{"conditions":[{"type":"StatusPatched","status":"True"}]}}`), metav1.PatchOptions{}, "status")
	must(t, err)
	expect(t, w, watch.Modified, func(d *appsv1.Deployment) bool {
		for _, c := range d.Status.Conditions {
			if c.Type == "StatusPatched" && c.Status == "True" {
				return *d.Spec.Replicas == 2
			}
		}
		return false
	})
	must(t, api.DeleteCollection(ctx, metav1.DeleteOptions{}, selector))
	expect[*appsv1.Deployment](t, w, watch.Deleted, nil)
}

// [sig-apps] Deployment Deployment should have a working scale subresource; ReplicaSet Replicaset should have a working scale
// subresource; ReplicationController should get and update a ReplicationController scale.
func TestScaleSubresource(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, all := t.Context(), dynamic.NewForConfigOrDie(s.config)
	s.deployment("deployments", 1, nil)
	s.replicaSet("replicasets", "replicasets", 1)
	s.replication("replicationcontrollers", 1)
	for _, gvr := range []schema.GroupVersionResource{appsv1.SchemeGroupVersion.WithResource("deployments"), appsv1.SchemeGroupVersion.WithResource("replicasets"), corev1.SchemeGroupVersion.WithResource("replicationcontrollers")} {
		name := gvr.Resource
		api := all.Resource(gvr).Namespace(s.namespace)
		s.readyPods("name="+name, 1)
		replicas := func(u *unstructured.Unstructured, err error, want int64) {
			t.Helper()
			must(t, err)
			if n, _, err := unstructured.NestedInt64(u.Object, "spec", "replicas"); err != nil || n != want || u.GetKind() != "Scale" || u.GetAPIVersion() != "autoscaling/v1" {
				t.Errorf("%s: scale %v, %v", name, u.Object, err)
			}
		}
		scale, err := api.Get(ctx, name, metav1.GetOptions{}, "scale")
		replicas(scale, err, 1)
		if selector, _, err := unstructured.NestedString(scale.Object, "status", "selector"); err != nil || !strings.Contains(selector, "name="+name) {
			t.Errorf("%s: selector %q, %v", name, selector, err)
		}
		scale.SetResourceVersion("")
		must(t, unstructured.SetNestedField(scale.Object, int64(2), "spec", "replicas"))
		scale, err = api.Update(ctx, scale, metav1.UpdateOptions{}, "scale")
		replicas(scale, err, 2)
		s.readyPods("name="+name, 2)
		scale, err = api.Patch(ctx, name, mergePatch, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{}, "scale")
		replicas(scale, err, 3)
		object, err := api.Get(ctx, name, metav1.GetOptions{})
		must(t, err)
		if n, _, _ := unstructured.NestedInt64(object.Object, "spec", "replicas"); n != 3 {
			t.Errorf("%s has %d replicas", name, n)
		}
		s.eventually("the status of the scale", func() error {
			scale, err := api.Get(ctx, name, metav1.GetOptions{}, "scale")
			if n, _, _ := unstructured.NestedInt64(scale.Object, "status", "replicas"); err == nil && n != 3 {
				err = fmt.Errorf("%d", n)
			}
			return err
		})
	}
}

func (s *session) replication(name string, replicas int32) *corev1.ReplicationController {
	s.t.Helper()
	labels := map[string]string{"name": name}
	rc := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: corev1.ReplicationControllerSpec{
		Replicas: &replicas, Selector: labels, Template: ptr.To(template(labels, "netexec")),
	}}
	rc, err := s.client.CoreV1().ReplicationControllers(s.namespace).Create(s.t.Context(), rc, metav1.CreateOptions{})
	must(s.t, err)
	return rc
}

// [sig-apps] ReplicaSet and ReplicationController should serve a basic image on each replica with a public image; should adopt
// matching pods on creation and release no longer matching pods; ReplicaSet Replace and Patch tests; should list and delete a
// collection of ReplicaSets.
func TestReplicas(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, pods := t.Context(), s.client.CoreV1().Pods(s.namespace)
	s.run(testPod("orphan-rc", map[string]string{"name": "rc"}), testPod("orphan-rs", map[string]string{"name": "rs", "set": "rs"}))
	rc := s.replication("rc", 2)
	rs := s.replicaSet("rs", "rs", 1)
	rs = update(t, func() (*appsv1.ReplicaSet, error) {
		return s.client.AppsV1().ReplicaSets(s.namespace).Get(ctx, rs.Name, metav1.GetOptions{})
	}, func(rs *appsv1.ReplicaSet) {
		rs.Spec.Replicas, rs.Spec.Template.Spec = ptr.To(int32(2)), testPodSpec("netexec")
	},
		func(rs *appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
			return s.client.AppsV1().ReplicaSets(s.namespace).Update(ctx, rs, metav1.UpdateOptions{})
		})
	for _, owner := range []metav1.Object{rc, rs} {
		selector := "name=" + owner.GetName()
		for _, p := range s.readyPods(selector, 2) {
			if !metav1.IsControlledBy(&p, owner) {
				t.Errorf("pod %s is owned by %+v", p.Name, p.OwnerReferences)
			}
			s.answers("http://"+p.Status.PodIP+":8080/hostname", 200, p.Name)
		}
		name := "orphan-" + owner.GetName()
		_, err := pods.Patch(ctx, name, mergePatch, []byte(`{"metadata":{"labels":{"name":"released"}}}`), metav1.PatchOptions{})
		must(t, err)
		s.pod(name, "released", func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })
		s.readyPods(selector, 2)
	}
	rs, err := s.client.AppsV1().ReplicaSets(s.namespace).Patch(ctx, rs.Name, mergePatch, []byte(`{"metadata":{"labels":{"test-rs":"patched"}},"spec":{"replicas":1}}`), metav1.PatchOptions{})
	must(t, err)
	if rs.Labels["test-rs"] != "patched" || *rs.Spec.Replicas != 1 {
		t.Errorf("patched %+v", rs)
	}
	s.readyPods("name=rs", 1)
	must(t, s.client.AppsV1().ReplicaSets(s.namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "test-rs=patched"}))
	s.readyPods("name=rs", 0)
}

// [sig-apps] ReplicationController should test the lifecycle of a ReplicationController.
func TestReplicationControllerLifecycle(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, api := t.Context(), s.client.CoreV1().ReplicationControllers(s.namespace)
	w, err := api.Watch(ctx, metav1.ListOptions{LabelSelector: "name=lifecycle"})
	must(t, err)
	defer w.Stop()
	rc := s.replication("lifecycle", 1)
	expect[*corev1.ReplicationController](t, w, watch.Added, nil)
	expect(t, w, watch.Modified, func(rc *corev1.ReplicationController) bool { return rc.Status.ReadyReplicas == 1 })
	_, err = api.Patch(ctx, rc.Name, mergePatch, []byte(`{"metadata":{"labels":{"test-rc":"patched"}}}`), metav1.PatchOptions{})
	must(t, err)
	expect(t, w, watch.Modified, func(rc *corev1.ReplicationController) bool { return rc.Labels["test-rc"] == "patched" })
	_, err = api.Patch(ctx, rc.Name, mergePatch, []byte(`{"status":{"readyReplicas":0,"availableReplicas":0}}`), metav1.PatchOptions{}, "status")
	must(t, err)
	expect(t, w, watch.Modified, func(rc *corev1.ReplicationController) bool { return rc.Status.ReadyReplicas == 0 })
	expect(t, w, watch.Modified, func(rc *corev1.ReplicationController) bool { return rc.Status.ReadyReplicas == 1 })
	_, err = api.Patch(ctx, rc.Name, mergePatch, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{}, "scale")
	must(t, err)
	expect(t, w, watch.Modified, func(rc *corev1.ReplicationController) bool {
		return *rc.Spec.Replicas == 2 && rc.Status.ReadyReplicas == 2
	})
	must(t, api.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "test-rc=patched"}))
	expect[*corev1.ReplicationController](t, w, watch.Deleted, nil)
}

// [sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it; should observe
// PodDisruptionBudget status updated; should create a PodDisruptionBudget; should update/patch PodDisruptionBudget status.
func TestDisruptionBudget(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx := t.Context()
	s.replicaSet("budgeted", "budgeted", 2)
	pods := s.readyPods("name=budgeted", 2)
	s.mustApply("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: budget}\nspec: {minAvailable: 2, selector: {matchLabels: {name: budgeted}}}")
	s.waitFor("jsonpath={.status.currentHealthy}=2", "pdb/budget")
	evict := func() error {
		return s.client.CoreV1().Pods(s.namespace).EvictV1(ctx, eviction(pods[0].Name))
	}
	err := evict()
	if !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "Cannot evict pod as it would violate the pod's disruption budget.") || !apierrors.HasStatusCause(err, "DisruptionBudget") {
		t.Errorf("an eviction that breaks the budget: %v", err)
	}
	s.kubectl("patch", "pdb", "budget", "--type=merge", "-p", `{"spec":{"minAvailable":1}}`)
	s.waitFor("jsonpath={.status.disruptionsAllowed}=1", "pdb/budget")
	must(t, evict())
	s.eventually("a replacement", func() error {
		for _, p := range s.readyPods("name=budgeted", 2) {
			if p.Name == pods[0].Name {
				return fmt.Errorf("pod %s is there", p.Name)
			}
		}
		return nil
	})
	s.waitFor("jsonpath={.status.disruptionsAllowed}=1", "pdb/budget")
	var status struct {
		Status struct{ ExpectedPods, DesiredHealthy int }
	}
	must(t, json.Unmarshal([]byte(s.kubectl("get", "pdb", "budget", "-o", "json")), &status))
	if status.Status.ExpectedPods != 2 || status.Status.DesiredHealthy != 1 {
		t.Errorf("status %+v", status)
	}
}
