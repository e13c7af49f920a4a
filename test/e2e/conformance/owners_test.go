package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func replication(name string, replicas int32) *corev1.ReplicationController {
	l := map[string]string{"rc": name}
	return &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ReplicationControllerSpec{
		Replicas: &replicas, Selector: l,
		Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}}, SchedulingGates: []corev1.PodSchedulingGate{{Name: "a.b/wait"}},
		}},
	}}
}

// podsLeft checks the number of pods with the label.
func podsLeft(ctx context.Context, ns, selector string, want int) func() error {
	return func() error {
		l, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err == nil && len(l.Items) != want {
			err = fmt.Errorf("%d pods, not %d", len(l.Items), want)
		}
		return err
	}
}

// [sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning; should orphan pods created by rc
// if delete options say so; should keep the rc around until all its pods are deleted if the deleteOptions says so.
func TestGarbageOfControllers(t *testing.T) {
	ns := namespace(t)
	ctx, api, pods := t.Context(), client.CoreV1().ReplicationControllers(ns), client.CoreV1().Pods(ns)
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationOrphan, metav1.DeletePropagationForeground} {
		t.Run(string(policy), func(t *testing.T) {
			name := map[metav1.DeletionPropagation]string{"Background": "b", "Orphan": "o", "Foreground": "f"}[policy]
			rc, err := api.Create(ctx, replication(name, 10), metav1.CreateOptions{})
			must(t, err)
			eventually(t, "pods", podsLeft(ctx, ns, "rc="+name, 10))
			held := ""
			if policy == metav1.DeletePropagationForeground { // one pod holds the controller up
				l, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "rc=" + name})
				must(t, err)
				held = l.Items[0].Name
				_, err = pods.Patch(ctx, held, types.MergePatchType, []byte(`{"metadata":{"finalizers":["a.b/hold"]}}`), metav1.PatchOptions{})
				must(t, err)
			}
			must(t, api.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: metav1.NewUIDPreconditions(string(rc.UID))}))
			switch policy {
			case metav1.DeletePropagationBackground:
				eventually(t, "no pods", podsLeft(ctx, ns, "rc="+name, 0))
			case metav1.DeletePropagationOrphan:
				eventually(t, "the end of the controller", gone(ctx, ns, name))
				eventually(t, "orphans", func() error {
					l, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "rc=" + name})
					if err != nil || len(l.Items) != 10 {
						return fmt.Errorf("%d pods, %w", len(l.Items), err)
					}
					for _, p := range l.Items {
						if len(p.OwnerReferences) > 0 || p.DeletionTimestamp != nil {
							return fmt.Errorf("%+v", p.ObjectMeta)
						}
					}
					return nil
				})
			default:
				eventually(t, "all pods but one", podsLeft(ctx, ns, "rc="+name, 1))
				if rc, err := api.Get(ctx, name, metav1.GetOptions{}); err != nil || rc.DeletionTimestamp == nil || rc.Finalizers[0] != "foregroundDeletion" {
					t.Errorf("the controller: %+v, %v", rc, err)
				}
				_, err = pods.Patch(ctx, held, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
				must(t, err)
				eventually(t, "the end of the controller", gone(ctx, ns, name))
				eventually(t, "no pods", podsLeft(ctx, ns, "rc="+name, 0))
			}
		})
	}
}

func gone(ctx context.Context, ns, rc string) func() error {
	return func() error {
		left, err := client.CoreV1().ReplicationControllers(ns).Get(ctx, rc, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("%+v, %w", left.ObjectMeta, err)
	}
}

// [sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for
// dependents to be deleted; should not be blocked by dependency circle.
func TestGarbageOfTwoOwners(t *testing.T) {
	ns := namespace(t)
	ctx, api := t.Context(), client.CoreV1().ConfigMaps(ns)
	make := func(name string, owners ...*corev1.ConfigMap) *corev1.ConfigMap {
		c := configMap(name, nil)
		for _, o := range owners {
			c.OwnerReferences = append(c.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: o.Name, UID: o.UID, BlockOwnerDeletion: ptr.To(true)})
		}
		c, err := api.Create(ctx, c, metav1.CreateOptions{})
		must(t, err)
		return c
	}
	goes, stays := make("goes"), make("stays")
	both, one := make("both", goes, stays), make("one", goes)
	foreground := metav1.DeletePropagationForeground
	must(t, api.Delete(ctx, goes.Name, metav1.DeleteOptions{PropagationPolicy: &foreground}))
	eventually(t, "the end of the owner", func() error {
		if _, err := api.Get(ctx, goes.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
	if _, err := api.Get(ctx, one.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("its only dependent is there: %v", err)
	}
	left, err := api.Get(ctx, both.Name, metav1.GetOptions{})
	must(t, err)
	if len(left.OwnerReferences) != 1 || left.OwnerReferences[0].UID != stays.UID {
		t.Errorf("owners are %+v", left.OwnerReferences)
	}
	a := make("circle-a")
	b := make("circle-b", a)
	c := make("circle-c", b)
	_, err = api.Patch(ctx, a.Name, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"circle-c","uid":"%s","blockOwnerDeletion":true}]}}`, c.UID), metav1.PatchOptions{})
	must(t, err)
	must(t, api.Delete(ctx, a.Name, metav1.DeleteOptions{PropagationPolicy: &foreground}))
	for _, name := range []string{"circle-a", "circle-b", "circle-c"} {
		eventually(t, "the end of "+name, func() error {
			if _, err := api.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("it is there: %w", err)
			}
			return nil
		})
	}
}

// [sig-apps] ReplicationController should adopt matching pods on creation; should release no longer matching pods; should get
// and update a ReplicationController scale; should surface a failure condition on a common issue like exceeded quota.
func TestReplicationController(t *testing.T) {
	ns := namespace(t)
	ctx, api, pods := t.Context(), client.CoreV1().ReplicationControllers(ns), client.CoreV1().Pods(ns)
	rc := replication("rc", 1)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "orphan", Labels: rc.Spec.Selector}, Spec: rc.Spec.Template.Spec}
	_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	must(t, err)
	rc, err = api.Create(ctx, rc, metav1.CreateOptions{})
	must(t, err)
	owned := func(want bool) func() error {
		return func() error {
			p, err := pods.Get(ctx, "orphan", metav1.GetOptions{})
			if err == nil && metav1.IsControlledBy(p, rc) != want {
				err = fmt.Errorf("owners %+v", p.OwnerReferences)
			}
			return err
		}
	}
	eventually(t, "the adoption", owned(true))
	_, err = pods.Patch(ctx, "orphan", types.MergePatchType, []byte(`{"metadata":{"labels":{"rc":"other"}}}`), metav1.PatchOptions{})
	must(t, err)
	eventually(t, "the release", owned(false))
	eventually(t, "a replacement", podsLeft(ctx, ns, "rc=rc", 1))
	eventually(t, "an update of the scale", func() error { // the controller writes its status meanwhile
		scale, err := api.GetScale(ctx, "rc", metav1.GetOptions{})
		must(t, err)
		scale.Spec.Replicas = 2
		_, err = api.UpdateScale(ctx, "rc", scale, metav1.UpdateOptions{})
		return err
	})
	eventually(t, "two pods", podsLeft(ctx, ns, "rc=rc", 2))
}

// [sig-api-machinery] Namespaces: patch, status, update, finalizer, and removal of pods and services.
func TestNamespaces(t *testing.T) {
	ctx, api := t.Context(), client.CoreV1().Namespaces()
	name := namespace(t) + "-x"
	_, err := api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(t, err)
	ns, err := api.Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	must(t, err)
	if ns.Labels["a"] != "b" || ns.Labels[corev1.LabelMetadataName] != name {
		t.Errorf("labels %v", ns.Labels)
	}
	ns, err = api.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"s":"p"}},"status":{"conditions":[{"type":"Test","status":"True","reason":"E2E"}]}}`), metav1.PatchOptions{}, "status")
	must(t, err)
	if len(ns.Status.Conditions) != 1 || ns.Status.Phase != corev1.NamespaceActive {
		t.Errorf("status %+v", ns.Status)
	}
	ns.Status.Conditions = append(ns.Status.Conditions, corev1.NamespaceCondition{Type: "Updated", Status: "True", LastTransitionTime: metav1.NewTime(time.Now())})
	ns, err = api.UpdateStatus(ctx, ns, metav1.UpdateOptions{})
	must(t, err)
	if len(ns.Status.Conditions) != 2 {
		t.Errorf("status %+v", ns.Status)
	}
	ns.Spec.Finalizers = append(ns.Spec.Finalizers, "example.com/hold")
	ns, err = api.Finalize(ctx, ns, metav1.UpdateOptions{})
	must(t, err)
	if len(ns.Spec.Finalizers) != 2 {
		t.Errorf("spec %+v", ns.Spec)
	}
	_, err = client.CoreV1().Pods(name).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: replication("x", 1).Spec.Template.Spec}, metav1.CreateOptions{})
	must(t, err)
	_, err = client.CoreV1().Services(name).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	must(t, err)
	must(t, api.Delete(ctx, name, metav1.DeleteOptions{}))
	eventually(t, "the namespace without its content", func() error {
		now, err := api.Get(ctx, name, metav1.GetOptions{})
		must(t, err)
		if now.Status.Phase != corev1.NamespaceTerminating || len(now.Spec.Finalizers) != 1 {
			return fmt.Errorf("%+v %+v", now.Spec, now.Status)
		}
		ns = now
		return nil
	})
	if l, err := client.CoreV1().Services(name).List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) > 0 {
		t.Errorf("services are left: %v, %v", l, err)
	}
	_, err = client.CoreV1().ConfigMaps(name).Create(ctx, configMap("x", nil), metav1.CreateOptions{})
	errorSays(t, "creation in a namespace that goes", err, 403, `configmaps "x" is forbidden: unable to create new content in namespace `+name+` because it is being terminated`)
	eventually(t, "the finalizer to be taken away", func() error {
		ns, err = api.Get(ctx, name, metav1.GetOptions{})
		must(t, err)
		ns.Spec.Finalizers = nil
		_, err = api.Finalize(ctx, ns, metav1.UpdateOptions{})
		return err
	})
	eventually(t, "the end of the namespace", func() error {
		if _, err := api.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
}
