package builtin_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller/controllertest"
)

// owned creates a config map with owners, in the namespace default.
func owned(t *testing.T, c *controllertest.Cluster, name string, finalizers []string, owners ...*corev1.ConfigMap) *corev1.ConfigMap {
	t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers}}
	for _, o := range owners {
		m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{
			APIVersion: "v1", Kind: "ConfigMap", Name: o.Name, UID: o.UID, BlockOwnerDeletion: ptr.To(true),
		})
	}
	m, err := c.Admin.CoreV1().ConfigMaps("default").Create(t.Context(), m, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func remove(t *testing.T, c *controllertest.Cluster, name string, policy metav1.DeletionPropagation) {
	t.Helper()
	if err := c.Admin.CoreV1().ConfigMaps("default").Delete(t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
}

// left waits until exactly these of the test's config maps are left.
func left(t *testing.T, c *controllertest.Cluster, names ...string) {
	t.Helper()
	controllertest.Wait(t, c, fmt.Sprintf("%v to be left", names), func(ctx context.Context) ([]string, error) {
		l, err := c.Admin.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{})
		var got []string
		for _, m := range l.Items {
			if m.Name != "kube-root-ca.crt" {
				got = append(got, m.Name)
			}
		}
		return got, err
	}, func(got []string) bool { return slices.Equal(got, names) })
}

func TestGarbage(t *testing.T) {
	c := controllertest.Start(t, all()...)
	maps := c.Admin.CoreV1().ConfigMaps("default")

	// Behind the owner, down all generations; what has another owner stays, without the reference.
	a := owned(t, c, "a", nil)
	z := owned(t, c, "z", nil)
	b := owned(t, c, "b", nil, a)
	owned(t, c, "c", nil, b)
	owned(t, c, "y", nil, a, z)
	remove(t, c, "a", metav1.DeletePropagationBackground)
	left(t, c, "y", "z")
	controllertest.Wait(t, c, "one reference", func(ctx context.Context) (*corev1.ConfigMap, error) {
		return maps.Get(ctx, "y", metav1.GetOptions{})
	}, func(m *corev1.ConfigMap) bool {
		return len(m.OwnerReferences) == 1 && m.OwnerReferences[0].UID == z.UID
	})

	// Left alone.
	remove(t, c, "z", metav1.DeletePropagationOrphan)
	left(t, c, "y")
	y, err := maps.Get(t.Context(), "y", metav1.GetOptions{})
	if err != nil || len(y.OwnerReferences) != 0 {
		t.Errorf("the orphan has %v, %v", y.OwnerReferences, err)
	}
	remove(t, c, "y", metav1.DeletePropagationBackground)

	// Before the owner, which waits for what is held.
	a = owned(t, c, "a", nil)
	b = owned(t, c, "b", nil, a)
	owned(t, c, "c", []string{"example.com/hold"}, b)
	remove(t, c, "a", metav1.DeletePropagationForeground)
	controllertest.Wait(t, c, "all to be deleted", func(ctx context.Context) (int, error) {
		n := 0
		for _, name := range []string{"a", "b", "c"} {
			m, err := maps.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return 0, err
			}
			if m.DeletionTimestamp != nil {
				n++
			}
		}
		return n, nil
	}, func(n int) bool { return n == 3 })
	left(t, c, "a", "b", "c")
	if _, err := maps.Patch(t.Context(), "c", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	left(t, c)

	// An owner that never was; one whose name another object has.
	ghost := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "ghost", UID: "ghost"}}
	owned(t, c, "a", nil, ghost)
	left(t, c)
	owned(t, c, "ghost", nil)
	owned(t, c, "b", nil, ghost)
	left(t, c, "ghost")

	// A circle that waits for itself.
	a = owned(t, c, "a", nil)
	b = owned(t, c, "b", nil, a)
	if _, err := maps.Patch(t.Context(), "a", types.MergePatchType, fmt.Appendf(nil,
		`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"b","uid":%q,"blockOwnerDeletion":true}]}}`, b.UID), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	remove(t, c, "a", metav1.DeletePropagationForeground)
	left(t, c, "ghost")

	// An owner in another namespace means nothing, and the user is told.
	foreign, err := c.Admin.CoreV1().ConfigMaps("kube-system").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "far"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := owned(t, c, "d", nil, foreign)
	left(t, c, "ghost")
	controllertest.Wait(t, c, "the event", func(ctx context.Context) (*corev1.EventList, error) {
		return c.Admin.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
	}, func(l *corev1.EventList) bool {
		return slices.ContainsFunc(l.Items, func(e corev1.Event) bool {
			return e.Reason == "OwnerRefInvalidNamespace" && e.InvolvedObject.UID == d.UID &&
				e.Message == fmt.Sprintf(`ownerRef [v1/ConfigMap, namespace: default, name: far, uid: %s] does not exist in namespace "default"`, foreign.UID)
		})
	})
}

// A set replaces pods that go, adopts what its selector matches, and releases what it matches no longer.
func TestReplicaSet(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	c.Agent(t, "n1", nil)
	ctx, pods := t.Context(), c.Admin.CoreV1().Pods("default")
	template := deployment("web", 3).Spec.Template
	stray := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "stray", Labels: template.Labels}, Spec: template.Spec}
	if _, err := pods.Create(ctx, stray, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The informers don't wait for each other: that of the sets may see the set before that of the pods sees the stray.
	seen := make(chan struct{})
	_, err := c.Informers.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(obj any) {
		if obj.(*corev1.Pod).Name == "stray" {
			close(seen)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-seen
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr.To(int32(3)), MinReadySeconds: 3600,
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template,
		},
	}
	set, err = c.Admin.AppsV1().ReplicaSets("default").Create(ctx, set, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	state := func(ctx context.Context) (*appsv1.ReplicaSet, error) {
		return c.Admin.AppsV1().ReplicaSets("default").Get(ctx, "web", metav1.GetOptions{})
	}
	now := controllertest.Wait(t, c, "ready pods", state, func(s *appsv1.ReplicaSet) bool { return s.Status.ReadyReplicas == 3 })
	if now.Status.AvailableReplicas != 0 {
		t.Error("the pods were available at once, with an hour of minReadySeconds")
	}
	if _, err := c.Admin.AppsV1().ReplicaSets("default").Patch(ctx, "web", types.MergePatchType, []byte(`{"spec":{"minReadySeconds":1}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "available pods", state, func(s *appsv1.ReplicaSet) bool {
		return s.Status.AvailableReplicas == 3 && s.Status.FullyLabeledReplicas == 3 && s.Status.ObservedGeneration == s.Generation && *s.Status.TerminatingReplicas == 0
	})
	adopted, err := pods.Get(ctx, "stray", metav1.GetOptions{})
	if err != nil || !metav1.IsControlledBy(adopted, set) || len(podsOf(t, c, "web")) != 3 {
		t.Errorf("the stray was not adopted: %v, %v", adopted.OwnerReferences, err)
	}
	if err := pods.Delete(ctx, "stray", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	victim := without(t, c, "stray")[0]
	if _, err := pods.Patch(ctx, victim.Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"debug"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the release", func(ctx context.Context) (*corev1.Pod, error) {
		return pods.Get(ctx, victim.Name, metav1.GetOptions{})
	}, func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })
	without(t, c, victim.Name)
	// Never more than declared: what was created is what was needed, two of three at first and two replacements.
	controllertest.Wait(t, c, "events", func(ctx context.Context) (int32, error) {
		l, err := c.Admin.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
		var n int32
		for _, e := range l.Items {
			if e.Reason == "SuccessfulCreate" && e.InvolvedObject.UID == set.UID && e.Source.Component == "replicaset-controller" {
				n += e.Count
			}
		}
		return n, err
	}, func(n int32) bool { return n == 4 })

	policy := metav1.DeletePropagationOrphan
	if err := c.Admin.AppsV1().ReplicaSets("default").Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the end of the set", func(ctx context.Context) (bool, error) {
		_, err := state(ctx)
		return apierrors.IsNotFound(err), nil
	}, func(gone bool) bool { return gone })
	if n := len(podsOf(t, c, "web")); n != 3 {
		t.Errorf("%d pods are left, want the 3 orphans", n)
	}
}

// without waits until there are three pods again, none of that name.
func without(t *testing.T, c *controllertest.Cluster, name string) []corev1.Pod {
	t.Helper()
	return controllertest.Wait(t, c, "a replacement of "+name, func(context.Context) ([]corev1.Pod, error) {
		return podsOf(t, c, "web"), nil
	}, func(pods []corev1.Pod) bool {
		return len(pods) == 3 && !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Name == name || p.Status.Phase != corev1.PodRunning })
	})
}

// Pods that can't be created are told about in the status.
// A burst of pods that come up is told in fewer writes than there are pods.
func TestBurstOfPods(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	c.Agent(t, "n1", nil)
	ctx := t.Context()
	const replicas = 40
	w, err := c.Admin.AppsV1().ReplicaSets("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := c.Admin.AppsV1().Deployments("default").Create(ctx, deployment("web", replicas), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	writes := 0
	for e := range w.ResultChan() {
		if writes++; e.Object.(*appsv1.ReplicaSet).Status.ReadyReplicas == replicas {
			break
		}
	}
	if t.Logf("%d writes for %d pods", writes, replicas); writes > replicas {
		t.Errorf("%d writes for %d pods", writes, replicas)
	}
}

func TestReplicaFailure(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	c.Agent(t, "n1", nil)
	d := deployment("web", 2)
	// Accepted in a template, whose metadata isn't that of an object, and refused in a pod.
	d.Spec.Template.Finalizers = []string{"not qualified"}
	_, err := c.Admin.AppsV1().Deployments("default").Create(t.Context(), d, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := controllertest.Wait(t, c, "the failure", get(c, "web"), func(d *appsv1.Deployment) bool {
		return conditionOf(d, appsv1.DeploymentReplicaFailure).Reason == "FailedCreate"
	})
	if f := conditionOf(got, appsv1.DeploymentReplicaFailure); f.Status != corev1.ConditionTrue || f.Message == "" {
		t.Errorf("ReplicaFailure is %+v", f)
	}
}

func TestAggregatedRoles(t *testing.T) {
	c := controllertest.Start(t, all()...)
	roles := c.Admin.RbacV1().ClusterRoles()
	_, err := roles.Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"example.com"}, Resources: []string{"widgets"}, Verbs: []string{"get"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"view", "edit", "admin"} { // view is aggregated to edit, and edit to admin
		controllertest.Wait(t, c, "the rule in "+name, func(ctx context.Context) (*rbacv1.ClusterRole, error) {
			return roles.Get(ctx, name, metav1.GetOptions{})
		}, func(r *rbacv1.ClusterRole) bool {
			return slices.ContainsFunc(r.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "widgets") })
		})
	}
}
