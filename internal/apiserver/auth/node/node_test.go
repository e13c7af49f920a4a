package node

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/apiserver/auth/podrefs"
)

func testPod(namespace, name, node string, secrets ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name)},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: "default"},
	}
	for _, s := range secrets {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: s}}})
	}
	return pod
}

func nodeUser(name string) user.Info {
	return &user.DefaultInfo{Name: "system:node:" + name, Groups: []string{user.NodesGroup}}
}

func TestAuthorize(t *testing.T) {
	g := NewGraph()
	pod := testPod("ns", "p", "a", "tls")
	pod.Spec.Volumes = append(pod.Spec.Volumes,
		corev1.Volume{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}},
		corev1.Volume{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}})
	pod.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr.To("gpu")}}
	g.SetPod(pod)
	g.SetPod(testPod("ns", "q", "b", "other"))
	g.SetPod(testPod("ns", "pending", "", "pending"))
	g.SetVolume(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "data"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			NodeStageSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "key"},
		}},
	}})
	g.SetVolume(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "free"}})
	g.SetAttachment(&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "att"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "a"}})
	a := New(g)

	req := func(verb, group, resource, namespace, name string) authorizer.AttributesRecord {
		resource, sub, _ := strings.Cut(resource, "/")
		return authorizer.AttributesRecord{User: nodeUser("a"), Verb: verb, APIGroup: group, Resource: resource, Subresource: sub, Namespace: namespace, Name: name, ResourceRequest: true}
	}
	selecting := func(r authorizer.AttributesRecord, selector string) authorizer.AttributesRecord {
		r.FieldSelectorRequirements = fields.ParseSelectorOrDie(selector).Requirements()
		return r
	}
	as := func(u user.Info, r authorizer.AttributesRecord) authorizer.AttributesRecord {
		r.User = u
		return r
	}
	const none, lonely = "no relationship found between node 'a' and this object", "can only get individual resources of this type"
	for _, test := range []struct {
		attrs authorizer.AttributesRecord
		no    string // "" means allowed, "-" no opinion without a reason
	}{
		{req("get", "", "secrets", "ns", "tls"), ""},
		{req("watch", "", "secrets", "ns", "tls"), ""},
		{req("list", "", "secrets", "ns", "tls"), ""},
		{req("list", "", "secrets", "ns", ""), "No Object name found"},
		{req("list", "", "secrets", "", ""), "can only read namespaced object of this type"},
		{req("update", "", "secrets", "ns", "tls"), "can only read resources of this type"},
		{req("get", "", "secrets", "ns", "other"), none},
		{req("get", "", "secrets", "ns", "pending"), none},
		{req("get", "", "secrets", "ns2", "tls"), none},
		{req("get", "", "secrets/x", "ns", "tls"), "cannot read subresource"},
		{req("get", "", "secrets", "storage", "key"), ""},
		{as(nodeUser("b"), req("get", "", "secrets", "storage", "key")), "no relationship found between node 'b' and this object"},
		{req("get", "", "configmaps", "ns", "cm"), ""},
		{req("get", "", "configmaps", "ns", "tls"), none},
		{req("get", "", "persistentvolumeclaims", "ns", "data"), ""},
		{req("list", "", "persistentvolumeclaims", "ns", "data"), lonely},
		{req("patch", "", "persistentvolumeclaims/status", "ns", "data"), ""},
		{req("patch", "", "persistentvolumeclaims/status", "ns", "x"), none},
		{req("get", "", "persistentvolumes", "", "pv"), ""},
		{req("get", "", "persistentvolumes", "", "free"), none},
		{req("list", "", "persistentvolumes", "", ""), lonely},
		{req("get", "storage.k8s.io", "volumeattachments", "", "att"), ""},
		{as(nodeUser("b"), req("get", "storage.k8s.io", "volumeattachments", "", "att")), "no relationship found between node 'b' and this object"},
		{req("get", "resource.k8s.io", "resourceclaims", "ns", "gpu"), ""},
		{req("get", "resource.k8s.io", "resourceclaims", "ns", "x"), none},
		{req("create", "", "serviceaccounts/token", "ns", "default"), ""},
		{req("create", "", "serviceaccounts/token", "ns", "admin"), none},
		{req("get", "", "serviceaccounts/token", "ns", "default"), "can only create tokens for individual service accounts"},
		{req("get", "", "serviceaccounts", "ns", "default"), ""},
		{req("list", "", "serviceaccounts", "ns", ""), lonely},
		{req("update", "coordination.k8s.io", "leases", "kube-node-lease", "a"), ""},
		{req("create", "coordination.k8s.io", "leases", "kube-node-lease", ""), ""},
		{req("update", "coordination.k8s.io", "leases", "kube-node-lease", "b"), "can only access node lease with the same name as the requesting node"},
		{req("update", "coordination.k8s.io", "leases", "ns", "a"), `can only access leases in the "kube-node-lease" system namespace`},
		{req("list", "coordination.k8s.io", "leases", "kube-node-lease", ""), "can only get, create, update, patch, or delete a node lease"},
		{req("update", "storage.k8s.io", "csinodes", "", "a"), ""},
		{req("update", "storage.k8s.io", "csinodes", "", "b"), "can only access CSINode with the same name as the requesting node"},
		{req("list", "storage.k8s.io", "csinodes", "", ""), "can only get, create, update, patch, or delete a CSINode"},
		{selecting(req("watch", "resource.k8s.io", "resourceslices", "", ""), "spec.nodeName=a"), ""},
		{req("watch", "resource.k8s.io", "resourceslices", "", ""), "can only list/watch/deletecollection resourceslices with nodeName field selector"},
		{req("get", "", "nodes", "", "a"), ""},
		{req("get", "", "nodes", "", "b"), "node 'a' cannot read 'b', only its own Node object"},
		{req("watch", "", "nodes", "", "a"), ""},
		{selecting(req("watch", "", "nodes", "", ""), "metadata.name=a"), ""},
		{req("list", "", "nodes", "", ""), "node 'a' cannot read all nodes, only its own Node object"},
		{req("create", "", "nodes", "", ""), ""},
		{req("patch", "", "nodes/status", "", "a"), ""},
		{req("delete", "", "nodes", "", "a"), "-"},
		{req("get", "", "pods", "ns", "p"), ""},
		{req("get", "", "pods", "ns", "q"), none},
		{selecting(req("watch", "", "pods", "", ""), "spec.nodeName=a"), ""},
		{selecting(req("watch", "", "pods", "", ""), "spec.nodeName=a,status.phase!=Failed"), ""},
		{selecting(req("watch", "", "pods", "", ""), "spec.nodeName!=a"), "can only list/watch pods with spec.nodeName field selector"},
		{selecting(req("watch", "", "pods", "", ""), "spec.nodeName=b"), "can only list/watch pods with spec.nodeName field selector"},
		{req("list", "", "pods", "ns", ""), "can only list/watch pods with spec.nodeName field selector"},
		{req("create", "", "pods", "ns", ""), ""},
		{req("patch", "", "pods/status", "ns", "q"), ""}, // admission decides
		{req("create", "", "pods/exec", "ns", "p"), "-"},
		{req("watch", "", "services", "", ""), ""},
		{req("create", "", "events", "ns", ""), ""},
		{req("list", "apps", "deployments", "", ""), "-"},
		{authorizer.AttributesRecord{User: nodeUser("a"), Verb: "get", Path: "/healthz"}, "-"},
		{as(&user.DefaultInfo{Name: "system:node:a"}, req("get", "", "secrets", "ns", "tls")), "-"},
		{as(&user.DefaultInfo{Name: "ann", Groups: []string{user.NodesGroup}}, req("get", "", "secrets", "ns", "tls")), "-"},
		{as(nodeUser(""), req("get", "", "secrets", "ns", "tls")), `unknown node for user "system:node:"`},
	} {
		decision, reason, err := a.Authorize(t.Context(), test.attrs)
		want := authorizer.DecisionNoOpinion
		if test.no == "" {
			want = authorizer.DecisionAllow
		}
		if err != nil || decision != want || reason != strings.TrimPrefix(test.no, "-") {
			t.Errorf("%s %s %s/%s %s/%s: got %v %q %v, want %q", test.attrs.User.GetName(), test.attrs.Verb, test.attrs.Resource, test.attrs.Subresource,
				test.attrs.Namespace, test.attrs.Name, decision, reason, err, test.no)
		}
	}
	if _, _, incomplete, err := a.RulesFor(t.Context(), nodeUser("a"), ""); !incomplete || err == nil {
		t.Error("the rules of a node are said to be complete")
	}
}

// TestGraph changes random pods and compares the graph with the pods themselves, while others ask.
func TestGraph(t *testing.T) {
	g := NewGraph()
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				g.Uses("n1", podrefs.Secret, "a", "s1")
				g.Runs("n1", "a", "p1")
			}
		}
	})
	r := rand.New(rand.NewPCG(3, 4))
	pick := func(prefix string, n int) string { return fmt.Sprint(prefix, r.IntN(n)) }
	pods := map[key]*corev1.Pod{}
	for step := range 5000 {
		k := key{pick("a", 2), pick("p", 6)}
		switch pod := pods[k]; {
		case pod == nil || r.IntN(10) == 0: // new, perhaps in the place of one whose end was not seen
			pod = testPod(k.namespace, k.name, "", pick("s", 4), pick("s", 4))
			pod.UID = types.UID(fmt.Sprint(step))
			if r.IntN(2) == 0 {
				pod.Spec.NodeName = pick("n", 3)
			}
			pods[k] = pod
			g.SetPod(pod)
		case r.IntN(3) == 0:
			delete(pods, k)
			g.DeletePod(k.namespace, k.name)
		case r.IntN(20) == 0:
			var all []*corev1.Pod
			for _, p := range pods {
				all = append(all, p)
			}
			g.ReplacePods(all)
		default:
			pod = pod.DeepCopy()
			if pod.Spec.NodeName == "" {
				pod.Spec.NodeName = pick("n", 3)
			} else {
				pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
					EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: pick("s", 4)}}}},
				}})
			}
			pods[k] = pod
			g.SetPod(pod)
		}
		node, namespace, secret := pick("n", 3), pick("a", 2), pick("s", 4)
		want := false
		for _, p := range pods {
			if p.Spec.NodeName != node || p.Namespace != namespace {
				continue
			}
			want = want || slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Secret.SecretName == secret }) ||
				slices.ContainsFunc(p.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.EnvFrom[0].SecretRef.Name == secret })
		}
		if got := g.Uses(node, podrefs.Secret, namespace, secret); got != want {
			t.Fatalf("step %d: node %s, secret %s/%s: graph says %v, pods say %v", step, node, namespace, secret, got, want)
		}
	}
	close(stop)
	readers.Wait()
	for k := range pods {
		g.DeletePod(k.namespace, k.name)
	}
	if len(g.pods)+len(g.sets)+len(g.uses) > 0 {
		t.Errorf("left behind: %v, %v, %v", g.pods, g.sets, g.uses)
	}
}

func TestGraphVolumes(t *testing.T) {
	g := NewGraph()
	pod := testPod("ns", "p", "a")
	pod.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	g.SetPod(pod)
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef:               &corev1.ObjectReference{Namespace: "ns", Name: "data"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{SecretRef: &corev1.SecretReference{Name: "key"}}},
	}}
	check := func(want bool) {
		t.Helper()
		if g.Mounts("a", "pv") != want || g.Uses("a", podrefs.Secret, "ns", "key") != want {
			t.Errorf("mounted: %v, secret: %v, want both %v", g.Mounts("a", "pv"), g.Uses("a", podrefs.Secret, "ns", "key"), want)
		}
	}
	check(false)
	g.SetVolume(pv)
	g.SetVolume(pv)
	check(true)
	g.DeleteVolume("pv")
	check(false)
	g.ReplaceVolumes([]*corev1.PersistentVolume{pv})
	check(true)
	g.ReplaceVolumes(nil)
	check(false)
	if len(g.bySecret) > 0 {
		t.Errorf("left behind: %v", g.bySecret)
	}
	att := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "a"}}
	g.ReplaceAttachments([]*storagev1.VolumeAttachment{att})
	if !g.Attaches("a", "x") || g.Attaches("b", "x") || g.Attaches("", "y") {
		t.Error("attachments are wrong")
	}
	g.DeleteAttachment("x")
	if g.Attaches("a", "x") {
		t.Error("a deleted attachment is remembered")
	}
}

func BenchmarkSetPod(b *testing.B) {
	b.ReportAllocs()
	g := NewGraph()
	for i := 0; b.Loop(); i++ {
		g.SetPod(testPod("ns", fmt.Sprint("p", i), "a", "x", "y"))
	}
}

func BenchmarkSetPodStatus(b *testing.B) {
	b.ReportAllocs()
	g := NewGraph()
	pod := testPod("ns", "p", "a", "x", "y")
	for b.Loop() {
		g.SetPod(pod)
	}
}
