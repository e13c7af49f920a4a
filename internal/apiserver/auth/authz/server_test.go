package authz_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/proa-k8s/proa/internal/api/catalogue"
	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/apiserver/admission"
	"github.com/proa-k8s/proa/internal/apiserver/auth/authn"
	"github.com/proa-k8s/proa/internal/apiserver/auth/authz"
	"github.com/proa-k8s/proa/internal/apiserver/auth/node"
	"github.com/proa-k8s/proa/internal/apiserver/auth/rbac"
	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/cluster/pki"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

// cluster is an API server over TLS with everything that decides about requests.
type cluster struct {
	t    *testing.T
	ctx  context.Context
	keys *pki.PKI
	url  string
	dir  string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	quiet := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{t: t, ctx: ctx, dir: t.TempDir()}
	var err error
	c.keys, err = pki.Load(filepath.Join(c.dir, "pki"), pki.Options{})
	must(err)
	db, err := etcd.Start(ctx, etcd.Config{Dir: filepath.Join(c.dir, "etcd"), UnsafeNoFsync: true, Logger: quiet})
	must(err)
	t.Cleanup(func() { _ = db.Close() })
	st, err := store.Open(ctx, db.Client(), store.Options{Logger: quiet, Rev: db.Rev})
	must(err)
	t.Cleanup(st.Close)
	resources := catalogue.Builtin()
	apiserver.RegisterCaches(st, resources)

	get := st.Cache
	tokens, err := authn.NewTokens(authn.TokensConfig{
		Issuer: "https://kubernetes.default.svc.cluster.local", Key: c.keys.ServiceAccountKey(),
		Objects: authn.Objects{
			ServiceAccounts: lookup.Get[*corev1.ServiceAccount](get("serviceaccounts")), Secrets: lookup.Get[*corev1.Secret](get("secrets")),
			Pods: lookup.Get[*corev1.Pod](get("pods")), Nodes: lookup.Get[*corev1.Node](get("minions")),
		},
	})
	must(err)
	who, err := authn.New(authn.Config{ClientCAs: c.keys.ClientCAs(), Tokens: tokens})
	must(err)

	roles, graph := rbac.New(), node.NewGraph()
	caches := rbac.Caches{Roles: get("roles"), ClusterRoles: get("clusterroles"), RoleBindings: get("rolebindings"), ClusterRoleBindings: get("clusterrolebindings")}
	_, err = rbac.Reconcile(ctx, caches, rbac.DefaultPolicy(nil, nil))
	must(err)
	ready, done := make(chan struct{}, 2), make(chan struct{}, 2)
	go func() {
		roles.Follow(ctx, quiet, caches, func() { ready <- struct{}{} })
		done <- struct{}{}
	}()
	go func() {
		graph.Follow(ctx, quiet, node.Caches{Pods: get("pods")}, func() { ready <- struct{}{} })
		done <- struct{}{}
	}()
	<-ready
	<-ready
	t.Cleanup(func() { cancel(); <-done; <-done })
	may := authz.New(node.New(graph), roles)

	chain, err := admission.New(admission.Config{
		Namespaces: lookup.Get[*corev1.Namespace](get("namespaces")), NamespacesLatest: lookup.GetLatest[*corev1.Namespace](get("namespaces")),
		ServiceAccounts: lookup.Get[*corev1.ServiceAccount](get("serviceaccounts")), Pods: lookup.Get[*corev1.Pod](get("pods")),
		PodList: lookup.List[*corev1.Pod](get("pods")), Nodes: lookup.Get[*corev1.Node](get("minions")),
		PriorityClasses: lookup.Get[*schedulingv1.PriorityClass](get("priorityclasses")), PriorityClassSet: lookup.List[*schedulingv1.PriorityClass](get("priorityclasses")),
		Authorizer: may, Escalation: rbac.NewEscalation(roles, may),
	})
	must(err)
	extra, err := tokens.Discovery("")
	must(err)
	server, err := apiserver.New(apiserver.Config{
		Store: st, Resources: resources, Authenticator: who, Authorizer: may, Admission: chain, Logger: quiet, Registerer: prometheus.NewRegistry(),
		Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+proa"},
		Extra:   extra,
		Creaters: map[string]apiserver.CreateFunc{
			"authentication.k8s.io/tokenreviews": who.TokenReview, "authentication.k8s.io/selfsubjectreviews": who.SelfSubjectReview,
			"authorization.k8s.io/subjectaccessreviews": may.SubjectAccessReview, "authorization.k8s.io/localsubjectaccessreviews": may.LocalSubjectAccessReview,
			"authorization.k8s.io/selfsubjectaccessreviews": may.SelfSubjectAccessReview, "authorization.k8s.io/selfsubjectrulesreviews": may.SelfSubjectRulesReview,
			"serviceaccounts/token": tokens.TokenRequest,
		},
	})
	must(err)
	t.Cleanup(server.Close)
	web := httptest.NewUnstartedServer(server)
	web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	web.Listener = tls.NewListener(web.Listener, c.keys.ServerTLS())
	web.Start()
	t.Cleanup(web.Close)
	c.url = "https://" + web.Listener.Addr().String()
	return c
}

// as gives a client with a certificate of the user.
func (c *cluster) as(name string, groups ...string) kubernetes.Interface {
	c.t.Helper()
	data, err := c.keys.Kubeconfig("test", c.url, name, groups)
	if err != nil {
		c.t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.client(config)
}

// withToken gives a client with a bearer token.
func (c *cluster) withToken(token string) kubernetes.Interface {
	c.t.Helper()
	return c.client(&rest.Config{Host: c.url, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: c.keys.CAPEM()}})
}

func (c *cluster) client(config *rest.Config) kubernetes.Interface {
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) refused(err error, want string) {
	c.t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		c.t.Errorf("got %v, want %q", err, want)
	}
}

// eventually waits for what the authorizer learns from the store.
func (c *cluster) eventually(fn func() error) {
	c.t.Helper()
	for {
		err := fn()
		if err == nil {
			return
		}
		select {
		case <-c.ctx.Done():
			c.t.Fatal(err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (c *cluster) setUp(admin kubernetes.Interface) {
	c.t.Helper()
	for _, ns := range []string{"dev", "kube-node-lease"} {
		_, err := admin.CoreV1().Namespaces().Create(c.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
		c.must(err)
	}
	_, err := admin.CoreV1().ServiceAccounts("dev").Create(c.ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	c.must(err)
}

func testPod(name, nodeName string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "dev", Name: name}, Spec: corev1.PodSpec{
		NodeName: nodeName, Containers: []corev1.Container{{Name: "c", Image: "i"}},
		Volumes: []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "of-" + name}}}},
	}}
}

func TestUsers(t *testing.T) {
	c := newCluster(t)
	admin, ann := c.as("admin", "system:masters"), c.as("ann", "staff")
	c.setUp(admin)
	list := func(who kubernetes.Interface) error {
		_, err := who.CoreV1().Pods("dev").List(c.ctx, metav1.ListOptions{})
		return err
	}
	err := list(ann)
	c.refused(err, `pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "dev"`)
	if !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
	c.refused(list(c.withToken("")), `User "system:anonymous" cannot list`)
	if err := list(c.withToken("nonsense")); !apierrors.IsUnauthorized(err) {
		t.Errorf("a bad token: %v", err)
	}
	if _, err := c.withToken("").Discovery().ServerVersion(); err != nil {
		t.Errorf("anybody may ask for the version: %v", err)
	}

	bind := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "staff"}}}
	_, err = admin.RbacV1().RoleBindings("dev").Create(c.ctx, bind, metav1.CreateOptions{})
	c.must(err)
	c.eventually(func() error { return list(ann) })

	// An admin of a namespace can pass on what they have, and no more.
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
	_, err = ann.RbacV1().Roles("dev").Create(c.ctx, role, metav1.CreateOptions{})
	c.must(err)
	role.Name, role.Rules[0].Resources = "s", []string{"nodes"}
	_, err = ann.RbacV1().Roles("dev").Create(c.ctx, role, metav1.CreateOptions{})
	c.refused(err, `roles.rbac.authorization.k8s.io "s" is forbidden: user "ann" (groups=["staff" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:`+"\n"+`{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}`)
	bind.Name, bind.RoleRef.Name = "c", "cluster-admin"
	_, err = ann.RbacV1().RoleBindings("dev").Create(c.ctx, bind, metav1.CreateOptions{})
	c.refused(err, `rolebindings.rbac.authorization.k8s.io "c" is forbidden: user "ann"`)

	p := testPod("p", "")
	p.Namespace = ""
	_, err = admin.CoreV1().Pods("nowhere").Create(c.ctx, p, metav1.CreateOptions{})
	c.refused(err, `namespaces "nowhere" not found`)
	p.Spec.ServiceAccountName = "gone"
	_, err = admin.CoreV1().Pods("dev").Create(c.ctx, p, metav1.CreateOptions{})
	c.refused(err, `pods "p" is forbidden: error looking up service account dev/gone: serviceaccount "gone" not found`)
}

func TestServiceAccounts(t *testing.T) {
	c := newCluster(t)
	admin := c.as("admin", "system:masters")
	c.setUp(admin)
	pod, err := admin.CoreV1().Pods("dev").Create(c.ctx, testPod("p", ""), metav1.CreateOptions{})
	c.must(err)
	if pod.Spec.ServiceAccountName != "default" || len(pod.Spec.Volumes) != 2 || len(pod.Spec.Containers[0].VolumeMounts) != 1 || len(pod.Spec.Tolerations) != 2 || pod.Spec.Priority == nil {
		t.Errorf("admission left the pod as %+v", pod.Spec)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: pod.UID}}}
	answer, err := admin.CoreV1().ServiceAccounts("dev").CreateToken(c.ctx, "default", request, metav1.CreateOptions{})
	c.must(err)
	bot := c.withToken(answer.Status.Token)
	me, err := bot.AuthenticationV1().SelfSubjectReviews().Create(c.ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	c.must(err)
	if u := me.Status.UserInfo; u.Username != "system:serviceaccount:dev:default" || !reflect.DeepEqual(u.Groups, []string{"system:serviceaccounts", "system:serviceaccounts:dev", "system:authenticated"}) ||
		!reflect.DeepEqual(u.Extra["authentication.kubernetes.io/pod-name"], authenticationv1.ExtraValue{"p"}) {
		t.Errorf("got %+v", u)
	}
	_, err = bot.CoreV1().Secrets("dev").List(c.ctx, metav1.ListOptions{})
	c.refused(err, `secrets is forbidden: User "system:serviceaccount:dev:default" cannot list resource "secrets" in API group "" in the namespace "dev"`)
	review, err := admin.AuthenticationV1().TokenReviews().Create(c.ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: answer.Status.Token}}, metav1.CreateOptions{})
	c.must(err)
	if !review.Status.Authenticated || review.Status.User.Username != "system:serviceaccount:dev:default" {
		t.Errorf("got %+v", review.Status)
	}
	short := int64(10)
	_, err = admin.CoreV1().ServiceAccounts("dev").CreateToken(c.ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &short}}, metav1.CreateOptions{})
	c.refused(err, "spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes")
	_, err = admin.CoreV1().ServiceAccounts("dev").CreateToken(c.ctx, "nobody", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	c.refused(err, `serviceaccounts "nobody" not found`)
	keys, err := bot.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(c.ctx)
	c.must(err)
	if !bytes.Contains(keys, []byte(`"kty":"EC"`)) {
		t.Errorf("got %s", keys)
	}

	// The token ends with the pod; what was checked is good for a moment, so another one is asked for that was not.
	second, err := admin.CoreV1().ServiceAccounts("dev").CreateToken(c.ctx, "default", request, metav1.CreateOptions{})
	c.must(err)
	zero := int64(0)
	c.must(admin.CoreV1().Pods("dev").Delete(c.ctx, "p", metav1.DeleteOptions{GracePeriodSeconds: &zero}))
	c.eventually(func() error { // tokens are checked against the cache, which hears of the end a moment later
		if _, err := admin.CoreV1().Pods("dev").Get(c.ctx, "p", metav1.GetOptions{ResourceVersion: "0"}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the cache still has the pod: %v", err)
		}
		return nil
	})
	if _, err := c.withToken(second.Status.Token).Discovery().ServerVersion(); !apierrors.IsUnauthorized(err) {
		t.Errorf("the token of a deleted pod: %v", err)
	}
}

func TestNodes(t *testing.T) {
	c := newCluster(t)
	admin, edge := c.as("admin", "system:masters"), c.as("system:node:edge", "system:nodes")
	c.setUp(admin)
	for name, nodeName := range map[string]string{"mine": "edge", "theirs": "other"} {
		_, err := admin.CoreV1().Secrets("dev").Create(c.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "of-" + name}}, metav1.CreateOptions{})
		c.must(err)
		_, err = admin.CoreV1().Pods("dev").Create(c.ctx, testPod(name, nodeName), metav1.CreateOptions{})
		c.must(err)
	}
	n, err := edge.CoreV1().Nodes().Create(c.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "edge", Labels: map[string]string{"kubernetes.io/hostname": "edge"}}}, metav1.CreateOptions{})
	c.must(err)
	if len(n.Spec.Taints) != 1 {
		t.Errorf("taints are %v", n.Spec.Taints)
	}
	_, err = edge.CoreV1().Nodes().Create(c.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})
	c.refused(err, `nodes "other" is forbidden: node "edge" is not allowed to modify node "other"`)
	c.eventually(func() error {
		_, err := edge.CoreV1().Secrets("dev").Get(c.ctx, "of-mine", metav1.GetOptions{})
		return err
	})
	_, err = edge.CoreV1().Secrets("dev").Get(c.ctx, "of-theirs", metav1.GetOptions{})
	c.refused(err, `secrets "of-theirs" is forbidden: User "system:node:edge" cannot get resource "secrets" in API group "" in the namespace "dev": no relationship found between node 'edge' and this object`)
	mine, err := edge.CoreV1().Pods("").List(c.ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=edge"})
	c.must(err)
	if len(mine.Items) != 1 || mine.Items[0].Name != "mine" {
		t.Errorf("got %d pods", len(mine.Items))
	}
	_, err = edge.CoreV1().Pods("").List(c.ctx, metav1.ListOptions{})
	c.refused(err, "can only list/watch pods with spec.nodeName field selector")
	_, err = edge.CoreV1().Nodes().List(c.ctx, metav1.ListOptions{FieldSelector: "metadata.name=edge"})
	c.must(err)
	ref := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "mine", UID: mine.Items[0].UID}
	_, err = edge.CoreV1().ServiceAccounts("dev").CreateToken(c.ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: ref}}, metav1.CreateOptions{})
	c.must(err)
	_, err = edge.CoreV1().ServiceAccounts("dev").CreateToken(c.ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	c.refused(err, "node requested token not bound to a pod")
	patch := []byte(`{"status":{"phase":"Running"}}`)
	_, err = edge.CoreV1().Pods("dev").Patch(c.ctx, "mine", "application/merge-patch+json", patch, metav1.PatchOptions{}, "status")
	c.must(err)
	_, err = edge.CoreV1().Pods("dev").Patch(c.ctx, "theirs", "application/merge-patch+json", patch, metav1.PatchOptions{}, "status")
	c.refused(err, `node "edge" can only update pod status for pods with spec.nodeName set to itself`)
}

// TestKubectl asks with the stock kubectl.
func TestKubectl(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl is not installed")
	}
	c := newCluster(t)
	admin := c.as("admin", "system:masters")
	c.setUp(admin)
	_, err = admin.RbacV1().RoleBindings("dev").Create(c.ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "ann"}}}, metav1.CreateOptions{})
	c.must(err)
	run := func(user string, groups []string, args ...string) string {
		t.Helper()
		data, err := c.keys.Kubeconfig("test", c.url, user, groups)
		c.must(err)
		file := filepath.Join(c.dir, "kubeconfig")
		c.must(os.WriteFile(file, data, 0o600))
		cmd := exec.CommandContext(c.ctx, kubectl, append([]string{"--kubeconfig", file, "--cache-dir", filepath.Join(c.dir, "cache")}, args...)...)
		out, _ := cmd.CombinedOutput() // "no" is an error for kubectl
		return string(out)
	}
	c.eventually(func() error {
		if out := run("ann", nil, "auth", "can-i", "list", "pods", "-n", "dev"); out != "yes\n" {
			return apierrors.NewBadRequest(out)
		}
		return nil
	})
	for _, test := range []struct{ args, want string }{
		{"auth can-i delete pods -n dev", "no"},
		{"auth can-i get /version", "yes"},
		{"auth can-i list pods -n dev --as=ann", `users "ann" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope`},
		{"auth whoami", "ann"},
		{"get pods -n kube-system", `Error from server (Forbidden): pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "kube-system"`},
	} {
		if out := run("ann", nil, strings.Fields(test.args)...); !strings.Contains(out, test.want) {
			t.Errorf("%s: got %s", test.args, out)
		}
	}
	if out := run("ann", nil, "auth", "can-i", "--list", "-n", "dev"); !strings.Contains(out, "selfsubjectaccessreviews.authorization.k8s.io") || !strings.Contains(out, "pods/log") || strings.Contains(out, "incomplete") {
		t.Errorf("got %s", out)
	}
	if out := run("admin", []string{"system:masters"}, "create", "token", "default", "-n", "dev"); len(strings.Split(strings.TrimSpace(out), ".")) != 3 {
		t.Errorf("got %s", out)
	}
	if out := run("admin", []string{"system:masters"}, "auth", "can-i", "delete", "nodes", "--as", "ann"); !strings.HasSuffix(out, "no\n") {
		t.Errorf("got %s", out)
	}
}
