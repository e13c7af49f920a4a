package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

const podSpec = `{"containers":[{"name":"c","image":"i"}]}`

const workload = `"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":` + podSpec + `}`

// kinds are objects of every kind that is served, without metadata. A status that a user may write is patched into the
// status subresource.
var kinds = []struct {
	resource, object, status string
}{
	{"v1/configmaps", `{"data":{"a":"b"}}`, ""},
	{"v1/endpoints", `{"subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":80}]}]}`, ""},
	{"v1/limitranges", `{"spec":{"limits":[{"type":"Container","default":{"cpu":"1"}}]}}`, ""},
	{"v1/persistentvolumeclaims", `{"spec":{"accessModes":["ReadWriteOnce"],"storageClassName":"","resources":{"requests":{"storage":"1Gi"}}}}`, `{"phase":"Pending"}`},
	{"v1/persistentvolumes", `{"spec":{"capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"],"hostPath":{"path":"/x"}}}`, `{"message":"m"}`},
	{"v1/podtemplates", `{"template":{"metadata":{"labels":{"a":"b"}},"spec":` + podSpec + `}}`, ""},
	{"v1/replicationcontrollers", `{"spec":{"replicas":0,"selector":{"a":"b"},"template":{"metadata":{"labels":{"a":"b"}},"spec":` + podSpec + `}}}`, `{"conditions":[{"type":"Test","status":"True"}]}`},
	{"v1/resourcequotas", `{"spec":{"hard":{"pods":"5000"}}}`, `{"hard":{"pods":"5"}}`},
	{"v1/secrets", `{"stringData":{"a":"b"}}`, ""},
	{"v1/serviceaccounts", `{}`, ""},
	{"v1/services", `{"spec":{"ports":[{"port":80}],"selector":{"x":"none"}}}`, `{"conditions":[{"type":"Test","status":"True","reason":"R","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`},
	{"v1/pods", `{"spec":{"schedulingGates":[{"name":"a.b/wait"}],"containers":[{"name":"c","image":"i"}]}}`, `{"message":"m"}`},
	{"v1/nodes", `{}`, `{"daemonEndpoints":{"kubeletEndpoint":{"Port":1}}}`},
	{"v1/events", `{"involvedObject":{"namespace":"NAMESPACE","name":"x","kind":"Pod"},"reason":"R","message":"m"}`, ""},
	{"apps/v1/controllerrevisions", `{"data":{"a":1},"revision":1}`, ""},
	{"apps/v1/daemonsets", `{"spec":{` + workload + `}}`, `{"conditions":[{"type":"Test","status":"True"}]}`},
	{"apps/v1/deployments", `{"spec":{"replicas":0,` + workload + `}}`, `{"conditions":[{"type":"Test","status":"True"}]}`},
	{"apps/v1/replicasets", `{"spec":{"replicas":0,` + workload + `}}`, `{"conditions":[{"type":"Test","status":"True"}]}`},
	{"apps/v1/statefulsets", `{"spec":{"serviceName":"s","replicas":0,` + workload + `}}`, `{"conditions":[{"type":"Test","status":"True"}]}`},
	{"batch/v1/cronjobs", `{"spec":{"schedule":"0 0 1 1 *","suspend":true,"jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}`, `{"lastScheduleTime":"2026-01-01T00:00:00Z"}`},
	{"batch/v1/jobs", `{"spec":{"suspend":true,"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}`, `{"conditions":[{"type":"Test","status":"True"}]}`},
	{"coordination.k8s.io/v1/leases", `{"spec":{"holderIdentity":"me"}}`, ""},
	{"discovery.k8s.io/v1/endpointslices", `{"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}]}`, ""},
	{"events.k8s.io/v1/events", `{"regarding":{"namespace":"NAMESPACE","name":"x","kind":"Pod"},"reason":"R","action":"A","type":"Normal","eventTime":"2026-01-01T00:00:00.000000Z","reportingController":"a.b/c","reportingInstance":"i"}`, ""},
	{"networking.k8s.io/v1/ingresses", `{"spec":{"defaultBackend":{"service":{"name":"s","port":{"number":80}}}}}`, `{"loadBalancer":{"ingress":[{"ip":"10.0.0.1"}]}}`},
	{"networking.k8s.io/v1/ingressclasses", `{"spec":{"controller":"a.b/c"}}`, ""},
	{"networking.k8s.io/v1/networkpolicies", `{"spec":{"podSelector":{}}}`, ""},
	{"node.k8s.io/v1/runtimeclasses", `{"handler":"h"}`, ""},
	{"policy/v1/poddisruptionbudgets", `{"spec":{"minAvailable":1,"selector":{"matchLabels":{"x":"none"}}}}`, `{"conditions":[{"type":"Test","status":"True","reason":"R","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`},
	{"rbac.authorization.k8s.io/v1/roles", `{"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`, ""},
	{"rbac.authorization.k8s.io/v1/clusterroles", `{"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}`, ""},
	{"rbac.authorization.k8s.io/v1/rolebindings", `{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"u"}]}`, ""},
	{"rbac.authorization.k8s.io/v1/clusterrolebindings", `{"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"r"},"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"u"}]}`, ""},
	{"scheduling.k8s.io/v1/priorityclasses", `{"value":7}`, ""},
	{"storage.k8s.io/v1/csidrivers", `{"spec":{"attachRequired":true}}`, ""},
	{"storage.k8s.io/v1/csinodes", `{"spec":{"drivers":[{"name":"d","nodeID":"n"}]}}`, ""},
	{"storage.k8s.io/v1/csistoragecapacities", `{"storageClassName":"s"}`, ""},
	{"storage.k8s.io/v1/storageclasses", `{"provisioner":"a.b/c"}`, ""},
	{"storage.k8s.io/v1/volumeattachments", `{"spec":{"attacher":"a.b","nodeName":"n","source":{"persistentVolumeName":"p"}}}`, `{"attached":true}`},
}

// Every kind can be created, read, listed, watched, updated, patched and deleted, one by one and as a collection, and its
// status be changed: what the conformance tests on single kinds demand ("should manage the lifecycle of...", "should
// support ... API operations", "should list and delete a collection of...", "should validate ... Status endpoints").
func TestKinds(t *testing.T) {
	ns := namespace(t)
	all := dynamic.NewForConfigOrDie(config)
	_, lists, err := client.Discovery().ServerGroupsAndResources()
	must(t, err)
	served := map[string]metav1.APIResource{}
	for _, l := range lists {
		for _, r := range l.APIResources {
			served[l.GroupVersion+"/"+r.Name] = r
		}
	}
	for _, kind := range kinds {
		t.Run(kind.resource, func(t *testing.T) {
			r, ok := served[kind.resource]
			if !ok {
				t.Fatal("it is not in discovery")
			}
			gv, err := schema.ParseGroupVersion(strings.TrimSuffix(kind.resource, "/"+r.Name))
			must(t, err)
			k := life{T: t, kind: gv.WithKind(r.Kind), label: map[string]string{"own": ns}}
			k.api = all.Resource(gv.WithResource(r.Name))
			if r.Namespaced {
				k.api = all.Resource(gv.WithResource(r.Name)).Namespace(ns)
			}
			must(t, json.Unmarshal([]byte(strings.ReplaceAll(kind.object, "NAMESPACE", ns)), &k.fields))
			k.run()
			if kind.status != "" {
				k.status(kind.status)
				if _, ok := served[kind.resource+"/status"]; !ok {
					t.Error("status is not in discovery")
				}
			} else if _, ok := served[kind.resource+"/status"]; ok {
				t.Error("a status that this test doesn't know is in discovery")
			}
			k.end()
		})
	}
}

type life struct {
	*testing.T
	api    dynamic.ResourceInterface
	kind   schema.GroupVersionKind
	label  map[string]string
	fields map[string]any
	name   string
}

func (k *life) object(suffix string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	for key, v := range k.fields {
		u.Object[key] = v
	}
	u.SetGroupVersionKind(k.kind)
	u.SetName(k.label["own"] + "-" + suffix)
	u.SetLabels(k.label)
	return u
}

func (k *life) run() {
	t, ctx := k.T, k.Context()
	selector := metav1.ListOptions{LabelSelector: "own=" + k.label["own"]}
	w, err := k.api.Watch(ctx, selector)
	must(t, err)
	defer w.Stop()
	made, err := k.api.Create(ctx, k.object("one"), metav1.CreateOptions{FieldValidation: "Strict"})
	must(t, err)
	k.name = made.GetName()
	if made.GetUID() == "" || made.GetCreationTimestamp().Time.IsZero() || made.GetResourceVersion() == "" || made.GroupVersionKind() != k.kind || len(made.GetManagedFields()) == 0 {
		t.Errorf("created %v", made.Object["metadata"])
	}
	expect(t, w, "ADDED "+k.name)
	_, err = k.api.Create(ctx, k.object("one"), metav1.CreateOptions{})
	errorSays(t, "the same again", err, 409, "already exists")
	got, err := k.api.Get(ctx, k.name, metav1.GetOptions{})
	must(t, err)
	if got.GetUID() != made.GetUID() {
		t.Errorf("got %v", got.Object["metadata"])
	}
	got, err = k.api.Patch(ctx, k.name, types.MergePatchType, []byte(`{"metadata":{"labels":{"patched":"yes"}}}`), metav1.PatchOptions{})
	must(t, err)
	if got.GetLabels()["patched"] != "yes" {
		t.Errorf("patched %v", got.GetLabels())
	}
	_, err = k.api.Patch(ctx, k.name, types.StrategicMergePatchType, []byte(`{"metadata":{"annotations":{"patched":"too"}}}`), metav1.PatchOptions{})
	must(t, err)
	k.update(func(u *unstructured.Unstructured) {
		a := u.GetAnnotations()
		if a["patched"] != "too" {
			t.Errorf("annotations are %v", a)
		}
		a["updated"] = "yes"
		u.SetAnnotations(a)
	})
	stale := made.DeepCopy()
	stale.SetAnnotations(map[string]string{"stale": "yes"})
	_, err = k.api.Update(ctx, stale, metav1.UpdateOptions{})
	errorSays(t, "a stale update", err, 409, "the object has been modified; please apply your changes to the latest version and try again")
	applied := &unstructured.Unstructured{Object: map[string]any{}}
	applied.SetGroupVersionKind(k.kind)
	applied.SetName(k.name)
	applied.SetAnnotations(map[string]string{"applied": "yes"})
	got, err = k.api.Apply(ctx, k.name, applied, metav1.ApplyOptions{FieldManager: "applier"})
	must(t, err)
	if a := got.GetAnnotations(); a["applied"] != "yes" || a["updated"] != "yes" {
		t.Errorf("applied %v", a)
	}
	found, err := k.api.List(ctx, selector)
	must(t, err)
	if len(found.Items) != 1 || found.GetKind() != k.kind.Kind+"List" || found.Items[0].GetName() != k.name {
		t.Errorf("listed %d of %s", len(found.Items), found.GetKind())
	}
}

// update changes the object as often as it takes: controllers write to it, too.
func (k *life) update(change func(*unstructured.Unstructured)) {
	eventually(k.T, "an update", func() error {
		u, err := k.api.Get(k.Context(), k.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(u)
		_, err = k.api.Update(k.Context(), u, metav1.UpdateOptions{})
		return err
	})
}

func (k *life) status(status string) {
	t, ctx := k.T, k.Context()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"status":"patched"}},"status":%s}`, status)
	got, err := k.api.Patch(ctx, k.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	must(t, err)
	var want map[string]any
	must(t, json.Unmarshal([]byte(status), &want))
	now, _, _ := unstructured.NestedMap(got.Object, "status")
	for key := range want {
		if now[key] == nil {
			t.Errorf("the status after its patch is %v", now)
		}
	}
	read, err := k.api.Get(ctx, k.name, metav1.GetOptions{}, "status")
	must(t, err)
	if read.GetUID() != got.GetUID() {
		t.Errorf("read %v", read.Object)
	}
	eventually(t, "an update of the status", func() error {
		u, err := k.api.Get(ctx, k.name, metav1.GetOptions{})
		must(t, err)
		_, err = k.api.UpdateStatus(ctx, u, metav1.UpdateOptions{})
		return err
	})
	// The main resource keeps the status.
	k.update(func(u *unstructured.Unstructured) { unstructured.RemoveNestedField(u.Object, "status") })
	read, err = k.api.Get(ctx, k.name, metav1.GetOptions{})
	must(t, err)
	now, _, _ = unstructured.NestedMap(read.Object, "status")
	for key := range want {
		if now[key] == nil {
			t.Errorf("the status after an update of the object is %v", now)
		}
	}
}

func (k *life) end() {
	t, ctx := k.T, k.Context()
	zero := int64(0)
	must(t, k.api.Delete(ctx, k.name, metav1.DeleteOptions{GracePeriodSeconds: &zero}))
	eventually(t, "the end of the object", func() error {
		u, err := k.api.Get(ctx, k.name, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("%v", u.Object["metadata"])
		}
		return nil
	})
	for _, suffix := range []string{"two", "three"} {
		_, err := k.api.Create(ctx, k.object(suffix), metav1.CreateOptions{})
		must(t, err)
	}
	selector := metav1.ListOptions{LabelSelector: "own=" + k.label["own"]}
	must(t, k.api.DeleteCollection(ctx, metav1.DeleteOptions{}, selector))
	eventually(t, "the end of the collection", func() error {
		left, err := k.api.List(ctx, selector)
		if err == nil && len(left.Items) > 0 {
			return fmt.Errorf("%d left: %v", len(left.Items), left.Items[0].Object["metadata"])
		}
		return err
	})
}
