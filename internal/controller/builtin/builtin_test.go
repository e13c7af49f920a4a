package builtin_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/builtin"
	"github.com/proa-k8s/proa/internal/controller/controllertest"
	"github.com/proa-k8s/proa/internal/controller/nodeipam"
)

func TestMain(m *testing.M) { controllertest.Main(m) }

// all gives all controllers, of a cluster with small ranges.
func all() []controller.Controller {
	return builtin.Controllers(builtin.Options{
		RootCA:     []byte("-----BEGIN CERTIFICATE-----\n"),
		IssueToken: func(a *corev1.ServiceAccount, s *corev1.Secret) (string, error) { return "token of " + a.Name, nil },
		NodeIPAM:   nodeipam.Config{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd00:42::/56")}},
	})
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	l := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Annotations: map[string]string{"note": "kept"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: l},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: l},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "hello:1"}}},
			},
		},
	}
}

// rolledOut is what kubectl rollout status waits for.
func rolledOut(d *appsv1.Deployment) bool {
	n := *d.Spec.Replicas
	return d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas == n && d.Status.Replicas == n &&
		d.Status.AvailableReplicas == n
}

func get(c *controllertest.Cluster, name string) func(context.Context) (*appsv1.Deployment, error) {
	return func(ctx context.Context) (*appsv1.Deployment, error) {
		return c.Admin.AppsV1().Deployments("default").Get(ctx, name, metav1.GetOptions{})
	}
}

// edit changes a deployment, as a user does who tries again on conflicts.
func edit(t *testing.T, c *controllertest.Cluster, name string, change func(*appsv1.Deployment)) {
	t.Helper()
	for {
		d, err := get(c, name)(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		change(d)
		if _, err = c.Admin.AppsV1().Deployments("default").Update(t.Context(), d, metav1.UpdateOptions{}); err == nil {
			return
		} else if !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
}

func conditionOf(d *appsv1.Deployment, t appsv1.DeploymentConditionType) appsv1.DeploymentCondition {
	for _, c := range d.Status.Conditions {
		if c.Type == t {
			return c
		}
	}
	return appsv1.DeploymentCondition{}
}

func podsOf(t *testing.T, c *controllertest.Cluster, app string) []corev1.Pod {
	t.Helper()
	list, err := c.Admin.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func setsOf(t *testing.T, c *controllertest.Cluster, app string) []appsv1.ReplicaSet {
	t.Helper()
	list, err := c.Admin.AppsV1().ReplicaSets("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b appsv1.ReplicaSet) int {
		return strings.Compare(a.Annotations["deployment.kubernetes.io/revision"], b.Annotations["deployment.kubernetes.io/revision"])
	})
	return list.Items
}

// A deployment with a service comes up, scales, rolls out, is undone, and is deleted with all that it owns.
func TestDeployment(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	c.Agent(t, "n1", nil)
	ctx := t.Context()
	begin := time.Now()
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{
		ClusterIP: "None", Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}
	if _, err := c.Admin.CoreV1().Services("default").Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Admin.AppsV1().Deployments("default").Create(ctx, deployment("web", 20), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	d := controllertest.Wait(t, c, "the roll-out", get(c, "web"), rolledOut)
	t.Logf("20 replicas available after %v", time.Since(begin))
	if n := len(podsOf(t, c, "web")); n != 20 {
		t.Errorf("there are %d pods, want 20", n)
	}
	if got := d.Annotations["deployment.kubernetes.io/revision"]; got != "1" {
		t.Errorf("revision is %q, want 1", got)
	}
	set := setsOf(t, c, "web")[0]
	d = controllertest.Wait(t, c, "completion", get(c, "web"), func(d *appsv1.Deployment) bool {
		return conditionOf(d, appsv1.DeploymentProgressing).Reason == "NewReplicaSetAvailable"
	})
	if p := conditionOf(d, appsv1.DeploymentProgressing); p.Status != corev1.ConditionTrue || p.Message != fmt.Sprintf("ReplicaSet %q has successfully progressed.", set.Name) {
		t.Errorf("Progressing is %+v", p)
	}
	if a := conditionOf(d, appsv1.DeploymentAvailable); a.Status != corev1.ConditionTrue || a.Reason != "MinimumReplicasAvailable" || a.Message != "Deployment has minimum availability." {
		t.Errorf("Available is %+v", a)
	}
	if set.Annotations["note"] != "kept" || set.Annotations["deployment.kubernetes.io/desired-replicas"] != "20" || set.Annotations["deployment.kubernetes.io/max-replicas"] != "25" {
		t.Errorf("the set's annotations are %v", set.Annotations)
	}
	if h := set.Labels["pod-template-hash"]; h == "" || set.Name != "web-"+h || set.Spec.Selector.MatchLabels["pod-template-hash"] != h {
		t.Errorf("the set's hash is %q in %v", h, set.Name)
	}
	waitEndpoints(t, c, "web", 20)

	edit(t, c, "web", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To(int32(2)) })
	controllertest.Wait(t, c, "scaling to 2", get(c, "web"), rolledOut)
	waitEndpoints(t, c, "web", 2)

	begin = time.Now()
	edit(t, c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "hello:2" })
	d = controllertest.Wait(t, c, "the second roll-out", get(c, "web"), rolledOut)
	t.Logf("rolled out after %v", time.Since(begin))
	if got := d.Annotations["deployment.kubernetes.io/revision"]; got != "2" {
		t.Errorf("revision is %q, want 2", got)
	}
	for _, p := range podsOf(t, c, "web") {
		if p.Spec.Containers[0].Image != "hello:2" {
			t.Errorf("pod %s still runs %s", p.Name, p.Spec.Containers[0].Image)
		}
	}
	sets := setsOf(t, c, "web")
	if len(sets) != 2 || *sets[0].Spec.Replicas != 0 || *sets[1].Spec.Replicas != 2 {
		t.Errorf("sets are %+v", sets)
	}
	// Back to the first template: its set is taken again, under a new revision.
	edit(t, c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "hello:1" })
	controllertest.Wait(t, c, "the undoing", get(c, "web"), func(d *appsv1.Deployment) bool {
		return rolledOut(d) && d.Annotations["deployment.kubernetes.io/revision"] == "3"
	})
	sets = setsOf(t, c, "web")
	if len(sets) != 2 || sets[1].Name != set.Name || sets[1].Annotations["deployment.kubernetes.io/revision-history"] != "1" {
		t.Errorf("after the undoing sets are %+v", sets)
	}

	if err := c.Admin.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the end of what the deployment owned", func(context.Context) (int, error) {
		return len(podsOf(t, c, "web")) + len(setsOf(t, c, "web")), nil
	}, func(n int) bool { return n == 0 })
	waitEndpoints(t, c, "web", 0)
}

// waitEndpoints waits until both kinds of endpoints have so many ready addresses.
func waitEndpoints(t *testing.T, c *controllertest.Cluster, service string, n int) {
	t.Helper()
	controllertest.Wait(t, c, fmt.Sprintf("%d endpoints", n), func(ctx context.Context) (int, error) {
		slices, err := c.Admin.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{
			LabelSelector: labels.Set{discoveryv1.LabelServiceName: service}.String(),
		})
		if err != nil {
			return 0, err
		}
		ready := 0
		for _, s := range slices.Items {
			for _, e := range s.Endpoints {
				if *e.Conditions.Ready {
					ready++
				}
			}
		}
		e, err := c.Admin.CoreV1().Endpoints("default").Get(ctx, service, metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		addresses := 0
		for _, s := range e.Subsets {
			addresses += len(s.Addresses)
		}
		if addresses != ready {
			return -1, nil
		}
		return ready, nil
	}, func(got int) bool { return got == n })
}

// A roll-out to something that never becomes ready stops within the bounds, and times out.
func TestBrokenRollout(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	c.Agent(t, "n1", func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image != "broken" })
	d := deployment("web", 4)
	d.Spec.ProgressDeadlineSeconds = ptr.To(int32(2))
	if _, err := c.Admin.AppsV1().Deployments("default").Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the roll-out", get(c, "web"), rolledOut)
	edit(t, c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "broken" })
	got := controllertest.Wait(t, c, "the deadline", get(c, "web"), func(d *appsv1.Deployment) bool {
		return conditionOf(d, appsv1.DeploymentProgressing).Reason == "ProgressDeadlineExceeded"
	})
	sets := setsOf(t, c, "web")
	want := fmt.Sprintf("ReplicaSet %q has timed out progressing.", sets[1].Name)
	if p := conditionOf(got, appsv1.DeploymentProgressing); p.Status != corev1.ConditionFalse || p.Message != want {
		t.Errorf("Progressing is %+v, want %q", p, want)
	}
	// maxSurge and maxUnavailable are 25 %, one pod each: 3 old ones stay, 2 new ones are tried.
	if *sets[0].Spec.Replicas != 3 || *sets[1].Spec.Replicas != 2 || got.Status.AvailableReplicas != 3 {
		t.Errorf("old %d, new %d, available %d; want 3, 2, 3", *sets[0].Spec.Replicas, *sets[1].Spec.Replicas, got.Status.AvailableReplicas)
	}
	edit(t, c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "hello:1" })
	controllertest.Wait(t, c, "the mending", get(c, "web"), rolledOut)
}

// The strategy Recreate has no pod of the new template before the last old one is gone; a paused roll-out waits.
func TestRecreateAndPause(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	c.Agent(t, "n1", nil)
	d := deployment("web", 3)
	d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	if _, err := c.Admin.AppsV1().Deployments("default").Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the roll-out", get(c, "web"), rolledOut)
	edit(t, c, "web", func(d *appsv1.Deployment) {
		d.Spec.Paused = true
		d.Spec.Template.Spec.Containers[0].Image = "hello:2"
	})
	controllertest.Wait(t, c, "the pause", get(c, "web"), func(d *appsv1.Deployment) bool {
		return conditionOf(d, appsv1.DeploymentProgressing).Reason == "DeploymentPaused"
	})
	edit(t, c, "web", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To(int32(5)) })
	controllertest.Wait(t, c, "scaling in pause", get(c, "web"), func(d *appsv1.Deployment) bool { return d.Status.AvailableReplicas == 5 })
	if n := len(setsOf(t, c, "web")); n != 1 {
		t.Errorf("%d sets while paused, want 1", n)
	}
	w, err := c.Admin.CoreV1().Pods("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	edit(t, c, "web", func(d *appsv1.Deployment) { d.Spec.Paused = false })
	controllertest.Wait(t, c, "the second roll-out", get(c, "web"), rolledOut)
	old, young := 0, 0
	for young < 5 {
		e := <-w.ResultChan()
		p := e.Object.(*corev1.Pod)
		switch is1 := p.Spec.Containers[0].Image == "hello:1"; {
		case is1 && e.Type == "ADDED":
			old++
		case is1 && e.Type == "DELETED":
			old--
		case !is1 && e.Type == "ADDED":
			young++
			if old > 0 {
				t.Fatalf("pod %s was created while %d old ones were there", p.Name, old)
			}
		}
	}
}

// Every namespace has its account and authority, and ends with all that is in it.
func TestNamespace(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	c.Agent(t, "n1", nil)
	ctx := t.Context()
	core := c.Admin.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := func(ctx context.Context) (*corev1.ServiceAccount, error) {
		return core.ServiceAccounts("shop").Get(ctx, "default", metav1.GetOptions{})
	}
	authority := func(ctx context.Context) (*corev1.ConfigMap, error) {
		return core.ConfigMaps("shop").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	}
	controllertest.Wait(t, c, "the account", account, func(*corev1.ServiceAccount) bool { return true })
	controllertest.Wait(t, c, "the authority", authority, func(m *corev1.ConfigMap) bool { return m.Data["ca.crt"] != "" })
	first, _ := account(ctx)
	if err := core.ServiceAccounts("shop").Delete(ctx, "default", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "another account", account, func(a *corev1.ServiceAccount) bool { return a.UID != first.UID })
	if err := core.ConfigMaps("shop").Delete(ctx, "kube-root-ca.crt", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the authority again", authority, func(m *corev1.ConfigMap) bool { return m.Data["ca.crt"] != "" })

	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "legacy", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
	if _, err := core.Secrets("shop").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the token", func(ctx context.Context) (*corev1.Secret, error) {
		return core.Secrets("shop").Get(ctx, "legacy", metav1.GetOptions{})
	}, func(s *corev1.Secret) bool {
		return string(s.Data["token"]) == "token of default" && string(s.Data["namespace"]) == "shop" && s.Annotations[corev1.ServiceAccountUIDKey] != ""
	})

	d := deployment("web", 3)
	d.Namespace = "shop"
	if _, err := c.Admin.AppsV1().Deployments("shop").Create(ctx, d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "pods", func(ctx context.Context) (*corev1.PodList, error) {
		return core.Pods("shop").List(ctx, metav1.ListOptions{})
	}, func(l *corev1.PodList) bool { return len(l.Items) == 3 })
	held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"example.com/hold"}}}
	if _, err := core.ConfigMaps("shop").Create(ctx, held, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := core.Namespaces().Delete(ctx, "shop", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	namespace := func(ctx context.Context) (*corev1.Namespace, error) {
		return core.Namespaces().Get(ctx, "shop", metav1.GetOptions{})
	}
	controllertest.Wait(t, c, "the condition", namespace, func(ns *corev1.Namespace) bool {
		return slices.ContainsFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == corev1.NamespaceFinalizersRemaining && c.Status == corev1.ConditionTrue &&
				c.Message == "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
		})
	})
	if _, err := core.ConfigMaps("shop").Patch(ctx, "held", "application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the end", func(ctx context.Context) (bool, error) {
		_, err := namespace(ctx)
		return apierrors.IsNotFound(err), nil
	}, func(gone bool) bool { return gone })
}

// Nodes get their parts of both ranges, and a new node gets what none has.
func TestNodes(t *testing.T) {
	c := controllertest.Start(t, all()...)
	parts := map[string]bool{}
	for i := range 5 {
		n := c.Node(t, fmt.Sprintf("n%d", i))
		n = controllertest.Wait(t, c, "CIDRs", func(ctx context.Context) (*corev1.Node, error) {
			return c.Admin.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		}, func(n *corev1.Node) bool { return len(n.Spec.PodCIDRs) == 2 })
		if n.Spec.PodCIDR != n.Spec.PodCIDRs[0] || !strings.HasPrefix(n.Spec.PodCIDR, "10.42.") || !strings.HasSuffix(n.Spec.PodCIDR, ".0/24") {
			t.Errorf("CIDRs are %v", n.Spec.PodCIDRs)
		}
		parts[n.Spec.PodCIDRs[0]], parts[n.Spec.PodCIDRs[1]] = true, true
	}
	if len(parts) != 10 {
		t.Errorf("the parts overlap: %v", parts)
	}
}
