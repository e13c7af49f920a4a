package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"
)

var edge = &user.DefaultInfo{Name: "system:node:edge", Groups: []string{user.NodesGroup}}

func TestNodeRestriction(t *testing.T) {
	mine := pod(func(p *corev1.Pod) {
		p.Name, p.UID, p.Spec.NodeName = "mine", "uid-of-mine", "edge"
		p.Spec.Volumes = []corev1.Volume{
			{VolumeSource: tokenVolume()},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault"}}}}}},
			{VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "secrets.csi"}}},
			{VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "gone.csi"}}},
		}
	})
	theirs := pod(func(p *corev1.Pod) { p.Name, p.UID, p.Spec.NodeName = "theirs", "uid-of-theirs", "other" })
	c := newChain(t, config(mine, theirs,
		&corev1.Node{ObjectMeta: objectMeta("", "edge")},
		&storagev1.CSIDriver{ObjectMeta: objectMeta("", "secrets.csi"), Spec: storagev1.CSIDriverSpec{TokenRequests: []storagev1.TokenRequest{{Audience: "csi"}}}},
	))
	mirror := func(change func(*corev1.Pod)) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			p.Spec.NodeName = "edge"
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "edge", UID: "uid-of-edge", Controller: ptr.To(true)}}
			if change != nil {
				change(p)
			}
		})
	}
	changed := func(p *corev1.Pod, change func(*corev1.Pod)) *corev1.Pod {
		p = p.DeepCopy()
		change(p)
		return p
	}
	node := func(name string, change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: objectMeta("", name)}
		if change != nil {
			change(n)
		}
		return n
	}
	labels := func(pairs ...string) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Labels = map[string]string{}
			for i := 0; i < len(pairs); i += 2 {
				n.Labels[pairs[i]] = pairs[i+1]
			}
		}
	}
	token := func(ref *authenticationv1.BoundObjectReference, audiences ...string) request {
		return request{obj: &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: ref, Audiences: audiences}},
			resource: corev1.SchemeGroupVersion.WithResource("serviceaccounts"), sub: "token", ns: "dev", name: "default"}
	}
	bound := func(name string) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: types.UID("uid-of-" + name)}
	}
	lease := func(ns, name string) request {
		return request{obj: &coordinationv1.Lease{ObjectMeta: objectMeta(ns, name)}, resource: coordinationv1.SchemeGroupVersion.WithResource("leases")}
	}
	slice := func(node string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: objectMeta("", "s"), Spec: resourcev1.ResourceSliceSpec{NodeName: &node}}
	}
	claim := func(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		p := &corev1.PersistentVolumeClaim{ObjectMeta: objectMeta("dev", "c")}
		if change != nil {
			change(p)
		}
		return p
	}
	slices := resourcev1.SchemeGroupVersion.WithResource("resourceslices")
	csi := storagev1.SchemeGroupVersion.WithResource("csinodes")
	podResource := corev1.SchemeGroupVersion.WithResource("pods")
	for name, test := range map[string]struct {
		r    request
		want string
	}{
		"mirror pod":           {r: request{obj: mirror(nil)}},
		"real pod":             {r: request{obj: pod(nil)}, want: `pod does not have "kubernetes.io/config.mirror" annotation, node "edge" can only create mirror pods`},
		"mirror elsewhere":     {r: request{obj: mirror(func(p *corev1.Pod) { p.Spec.NodeName = "other" })}, want: `node "edge" can only create pods with spec.nodeName set to itself`},
		"mirror without owner": {r: request{obj: mirror(func(p *corev1.Pod) { p.OwnerReferences = nil })}, want: `node "edge" can only create pods with an owner reference set to itself`},
		"mirror of two":        {r: request{obj: mirror(func(p *corev1.Pod) { p.OwnerReferences = append(p.OwnerReferences, p.OwnerReferences[0]) })}, want: `node "edge" can only create pods with a single owner reference set to itself`},
		"mirror of another":    {r: request{obj: mirror(func(p *corev1.Pod) { p.OwnerReferences[0].Name = "other" })}, want: "with an owner reference set to itself"},
		"mirror uncontrolled":  {r: request{obj: mirror(func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil })}, want: "with a controller owner reference set to itself"},
		"mirror blocks":        {r: request{obj: mirror(func(p *corev1.Pod) { p.OwnerReferences[0].BlockOwnerDeletion = ptr.To(true) })}, want: "must not set blockOwnerDeletion on an owner reference"},
		"mirror of a former":   {r: request{obj: mirror(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "x" })}, want: "node edge UID mismatch: expected x got uid-of-edge"},
		"mirror with config map": {r: request{obj: mirror(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}}}}}
		})}, want: `node "edge" can not create pods that reference configmaps`},
		"mirror with claim template": {r: request{obj: mirror(func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "x"}} })}, want: "can not create pods that reference resourceclaims"},
		"update a pod":               {r: request{obj: mine, old: mine}, want: `unexpected operation "UPDATE", node "edge" can only create and delete mirror pods`},
		"delete own":                 {r: request{name: "mine", ns: "dev", resource: podResource, op: admission.Delete}},
		"delete another's":           {r: request{name: "theirs", ns: "dev", resource: podResource, op: admission.Delete}, want: `pods "theirs" is forbidden: node "edge" can only delete pods with spec.nodeName set to itself`},
		"delete missing":             {r: request{name: "x", ns: "dev", resource: podResource, op: admission.Delete}, want: `pods "x" not found`},
		"own status":                 {r: request{obj: changed(mine, func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }), old: mine, sub: "status"}},
		"another's status":           {r: request{obj: theirs, old: theirs, sub: "status"}, want: `node "edge" can only update pod status for pods with spec.nodeName set to itself`},
		"labels by status":           {r: request{obj: changed(mine, func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), old: mine, sub: "status"}, want: `node "edge" cannot update labels through pod status`},
		"claims by status":           {r: request{obj: changed(mine, func(p *corev1.Pod) { p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}} }), old: mine, sub: "status"}, want: "cannot update resource claim statuses"},
		"evict own":                  {r: request{obj: &policyv1.Eviction{ObjectMeta: objectMeta("dev", "mine")}, resource: podResource, sub: "eviction"}},
		"evict another's":            {r: request{obj: &policyv1.Eviction{ObjectMeta: objectMeta("dev", "theirs")}, resource: podResource, sub: "eviction"}, want: "node edge can only evict pods with spec.nodeName set to itself"},

		"create itself":        {r: request{obj: node("edge", labels("kubernetes.io/hostname", "edge", "node.kubernetes.io/x", "y", "example.org/z", ""))}},
		"create another":       {r: request{obj: node("other", nil)}, want: `node "edge" is not allowed to modify node "other"`},
		"restricted labels":    {r: request{obj: node("edge", labels("node-role.kubernetes.io/control-plane", "", "x.node-restriction.kubernetes.io/a", ""))}, want: "is not allowed to set the following labels: node-role.kubernetes.io/control-plane, x.node-restriction.kubernetes.io/a"},
		"update itself":        {r: request{obj: node("edge", labels("example.org/a", "b")), old: node("edge", nil)}},
		"relabel itself":       {r: request{obj: node("edge", labels("node-restriction.kubernetes.io/a", "b")), old: node("edge", labels("node-restriction.kubernetes.io/a", "c"))}, want: "is not allowed to modify labels: node-restriction.kubernetes.io/a"},
		"unlabel itself":       {r: request{obj: node("edge", nil), old: node("edge", labels("k8s.io/a", "c"))}, want: "is not allowed to modify labels: k8s.io/a"},
		"keeps labels":         {r: request{obj: node("edge", labels("k8s.io/a", "c")), old: node("edge", labels("k8s.io/a", "c"))}},
		"taints":               {r: request{obj: node("edge", nil), old: node("edge", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "a"}} })}, want: `node "edge" is not allowed to modify taints`},
		"owners":               {r: request{obj: node("edge", func(n *corev1.Node) { n.OwnerReferences = []metav1.OwnerReference{{}} }), old: node("edge", nil)}, want: "is not allowed to modify ownerReferences"},
		"own node status":      {r: request{obj: node("edge", nil), old: node("edge", nil), sub: "status"}},
		"another's status of ": {r: request{obj: node("other", nil), old: node("other", nil), sub: "status"}, want: `nodes "other" is forbidden: node "edge" is not allowed to modify node "other"`},
		"delete another node":  {r: request{old: node("other", nil), op: admission.Delete}, want: "is not allowed to modify node"},

		"token":                  {r: token(bound("mine"))},
		"token for vault":        {r: token(bound("mine"), "vault")},
		"token for csi":          {r: token(bound("mine"), "csi")},
		"token for nobody":       {r: token(bound("mine"), "bank"), want: `audience "bank" not found in pod spec volume`},
		"token for two":          {r: token(bound("mine"), "vault", "csi"), want: "node may only request 0 or 1 audiences"},
		"token unbound":          {r: token(nil), want: "node requested token not bound to a pod"},
		"token of a secret":      {r: token(&authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: "x", UID: "x"}), want: "node requested token not bound to a pod"},
		"token without uid":      {r: token(&authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "mine"}), want: "node requested token with a pod binding without a uid"},
		"token of another's pod": {r: token(bound("theirs")), want: "node requested token bound to a pod scheduled on a different node"},
		"token of a missing pod": {r: token(bound("gone")), want: `pods "gone" not found`},

		"own lease":         {r: lease("kube-node-lease", "edge"), want: `namespaces "kube-node-lease" not found`}, // it is NamespaceLifecycle that minds
		"another's lease":   {r: request{obj: lease("kube-node-lease", "other").obj, old: lease("kube-node-lease", "other").obj, resource: coordinationv1.SchemeGroupVersion.WithResource("leases")}, want: "can only access node lease with the same name as the requesting node"},
		"lease elsewhere":   {r: lease("dev", "edge"), want: `can only access leases in the "kube-node-lease" system namespace`},
		"own CSINode":       {r: request{obj: &storagev1.CSINode{ObjectMeta: objectMeta("", "edge")}, resource: csi}},
		"another's CSINode": {r: request{obj: &storagev1.CSINode{ObjectMeta: objectMeta("", "other")}, resource: csi}, want: "can only access CSINode with the same name as the requesting node"},
		"own slice":         {r: request{obj: slice("edge"), resource: slices}},
		"another's slice":   {r: request{obj: slice("other"), resource: slices}, want: "can only create ResourceSlice with the same NodeName as the requesting node"},
		"delete a slice":    {r: request{old: slice("other"), resource: slices, op: admission.Delete}, want: "can only delete ResourceSlice with the same NodeName as the requesting node"},
		"claim grew": {r: request{obj: claim(func(c *corev1.PersistentVolumeClaim) {
			c.Status.Capacity = corev1.ResourceList{"storage": resource.MustParse("2Gi")}
		}), old: claim(nil), sub: "status"}},
		"claim bound": {r: request{obj: claim(func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound }), old: claim(nil), sub: "status"}, want: "is not allowed to update fields other than status.quantity and status.conditions"},
	} {
		t.Run(name, func(t *testing.T) {
			test.r.user = edge
			check(t, admit(t, c, test.r), test.want)
			// Nobody else is bound by this.
			if test.want != "" {
				test.r.user = &user.DefaultInfo{Name: "edge"}
				if err := (&nodeRestriction{&Config{}}).check(t.Context(), test.r.attributes(), nil); err != nil {
					t.Errorf("a user was refused: %v", err)
				}
			}
		})
	}
	check(t, admit(t, c, request{obj: node("edge", nil), user: &user.DefaultInfo{Name: "system:node:", Groups: []string{user.NodesGroup}}}), `could not determine node from user "system:node:"`)
}

func TestOwnerReferences(t *testing.T) {
	conf := config()
	conf.Enable = []string{"OwnerReferencesPermissionEnforcement"}
	c := newChain(t, conf)
	owned := func(kind string, block bool) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "x", OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "o", UID: "u", BlockOwnerDeletion: &block}}}}
	}
	plain := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: "x"}}
	as := func(name string) user.Info { return &user.DefaultInfo{Name: name} }
	for name, test := range map[string]struct {
		r    request
		want string
	}{
		"create":                  {r: request{obj: owned("Deployment", false)}},
		"create, blocking":        {r: request{obj: owned("Deployment", true)}, want: "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: no rule, <nil>"},
		"create, may block":       {r: request{obj: owned("Deployment", true), user: as("may-update")}},
		"create, unknown":         {r: request{obj: owned("Unknown", true)}, want: "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion apps/v1 Kind Unknown"},
		"update":                  {r: request{obj: owned("Deployment", false), old: plain}, want: "cannot set an ownerRef on a resource you can't delete: no rule, <nil>"},
		"update, may delete":      {r: request{obj: owned("Deployment", false), old: plain, user: as("may-delete")}},
		"unchanged":               {r: request{obj: owned("Deployment", true), old: owned("Deployment", true)}},
		"taken away":              {r: request{obj: plain, old: owned("Deployment", true)}, want: "cannot set an ownerRef"},
		"blocks, may only delete": {r: request{obj: owned("Deployment", true), old: owned("Deployment", false), user: as("may-delete")}, want: "cannot set blockOwnerDeletion"},
	} {
		t.Run(name, func(t *testing.T) { check(t, admit(t, c, test.r), test.want) })
	}
}

func TestCertificates(t *testing.T) {
	c := newChain(t, config())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr := func(signer string, groups ...string) *certificatesv1.CertificateSigningRequest {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x", Organization: groups}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificatesv1.CertificateSigningRequest{ObjectMeta: objectMeta("", "r"), Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: signer, Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		}}
	}
	signed := csr("example.org/s")
	signed.Status.Certificate = []byte("x")
	garbage := csr(certificatesv1.KubeAPIServerClientSignerName)
	garbage.Spec.Request = []byte("x")
	resource := certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests")
	as := func(name string) user.Info { return &user.DefaultInfo{Name: name} }
	for name, test := range map[string]struct {
		obj, old runtime.Object
		sub      string
		user     user.Info
		want     string
	}{
		"client":            {obj: csr(certificatesv1.KubeAPIServerClientSignerName, "staff")},
		"client of masters": {obj: csr(certificatesv1.KubeAPIServerClientSignerName, "system:masters"), want: "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"},
		"other signer":      {obj: csr("example.org/s", "system:masters")},
		"garbage":           {obj: garbage, want: "failed to parse CSR"},
		"approve":           {obj: csr("example.org/s"), old: csr("example.org/s"), sub: "approval", want: `user not permitted to approve requests with signerName "example.org/s"`},
		"may approve":       {obj: csr("example.org/s"), old: csr("example.org/s"), sub: "approval", user: as("may-approve")},
		"sign":              {obj: signed, old: csr("example.org/s"), sub: "status", want: `user not permitted to sign requests with signerName "example.org/s"`},
		"may sign":          {obj: signed, old: csr("example.org/s"), sub: "status", user: as("may-sign")},
		"signs nothing":     {obj: csr("example.org/s"), old: csr("example.org/s"), sub: "status"},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, admit(t, c, request{obj: test.obj, old: test.old, resource: resource, sub: test.sub, user: test.user}), test.want)
		})
	}
}
