package conformance

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// [sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace.
func TestRootCA(t *testing.T) {
	ns := namespace(t)
	api, ctx := client.CoreV1().ConfigMaps(ns), t.Context()
	root := func() (got *corev1.ConfigMap) {
		eventually(t, "the root CA", func() (err error) {
			got, err = api.Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
			if err == nil && (len(got.Data) != 1 || got.Data["ca.crt"] == "") {
				err = fmt.Errorf("%v", got.Data)
			}
			return err
		})
		return got
	}
	was := root()
	must(t, api.Delete(ctx, was.Name, metav1.DeleteOptions{}))
	if now := root(); now.UID == was.UID {
		t.Error("it was not deleted")
	}
	_, err := api.Patch(ctx, was.Name, types.MergePatchType, []byte(`{"data":{"ca.crt":null,"x":"y"}}`), metav1.PatchOptions{})
	must(t, err)
	root()
}

// [sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview; should run through the
// lifecycle of a ServiceAccount; should update a ServiceAccount.
func TestServiceAccountTokens(t *testing.T) {
	ns := namespace(t)
	ctx, api := t.Context(), client.CoreV1().ServiceAccounts(ns)
	eventually(t, "the default account", func() error {
		_, err := api.Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	account, err := api.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "bot"}, AutomountServiceAccountToken: ptr.To(false)}, metav1.CreateOptions{})
	must(t, err)
	account.AutomountServiceAccountToken = ptr.To(true)
	account, err = api.Update(ctx, account, metav1.UpdateOptions{})
	must(t, err)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(600))}}
	token, err := api.CreateToken(ctx, "bot", request, metav1.CreateOptions{})
	must(t, err)
	if token.Status.Token == "" || token.Status.ExpirationTimestamp.IsZero() {
		t.Fatalf("token %+v", token.Status)
	}
	reviewed, err := client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token}}, metav1.CreateOptions{})
	must(t, err)
	user := "system:serviceaccount:" + ns + ":bot"
	if s := reviewed.Status; !s.Authenticated || s.Error != "" || s.User.Username != user || s.User.UID != string(account.UID) ||
		!slices.Contains(s.User.Groups, "system:serviceaccounts:"+ns) || !slices.Contains(s.User.Groups, "system:serviceaccounts") {
		t.Errorf("review %+v", s)
	}
	_, err = api.CreateToken(ctx, "bot", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(5))}}, metav1.CreateOptions{})
	errorSays(t, "a short token", err, 422, "may not specify a duration less than 10 minutes")

	as := rest.AnonymousClientConfig(config)
	as.BearerToken = token.Status.Token
	bot := kubernetes.NewForConfigOrDie(as)
	self, err := bot.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	must(t, err)
	if self.Status.UserInfo.Username != user {
		t.Errorf("the bot is %+v", self.Status.UserInfo)
	}
	_, err = bot.CoreV1().Secrets(ns).List(ctx, metav1.ListOptions{})
	errorSays(t, "what the bot may not do", err, 403, `secrets is forbidden: User "`+user+`" cannot list resource "secrets" in API group "" in the namespace "`+ns+`"`)
	// Another token than the first, which is believed without a check for 10 s.
	second, err := api.CreateToken(ctx, "bot", request, metav1.CreateOptions{})
	must(t, err)
	must(t, api.Delete(ctx, "bot", metav1.DeleteOptions{}))
	as.BearerToken = second.Status.Token
	bot = kubernetes.NewForConfigOrDie(as)
	_, err = bot.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	errorSays(t, "the token of an account that is gone", err, 401, "Unauthorized")
}

// [sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer.
func TestIssuerDiscovery(t *testing.T) {
	a := request(t, "GET", "/.well-known/openid-configuration", "")
	var doc struct {
		Issuer   string   `json:"issuer"`
		JWKSURI  string   `json:"jwks_uri"`
		Types    []string `json:"response_types_supported"`
		Subjects []string `json:"subject_types_supported"`
		Algs     []string `json:"id_token_signing_alg_values_supported"`
	}
	must(t, json.Unmarshal(a.body, &doc))
	if a.code != 200 || a.header.Get("Content-Type") != "application/json" || doc.Issuer == "" || doc.JWKSURI == "" || len(doc.Types) == 0 || len(doc.Subjects) == 0 || len(doc.Algs) == 0 {
		t.Errorf("%d %s %s", a.code, a.header.Get("Content-Type"), a.body)
	}
	a = request(t, "GET", "/openid/v1/jwks", "")
	var keys struct {
		Keys []map[string]string `json:"keys"`
	}
	must(t, json.Unmarshal(a.body, &keys))
	if a.code != 200 || a.header.Get("Content-Type") != "application/jwk-set+json" || len(keys.Keys) == 0 || keys.Keys[0]["kid"] == "" || keys.Keys[0]["d"] != "" {
		t.Errorf("%d %s %s", a.code, a.header.Get("Content-Type"), a.body)
	}
}

// [sig-auth] SubjectReview should support SubjectReview API operations.
func TestSubjectReviews(t *testing.T) {
	ns := namespace(t)
	ctx, api := t.Context(), client.AuthorizationV1()
	attributes := &authorizationv1.ResourceAttributes{Verb: "list", Resource: "configmaps", Namespace: ns, Version: "v1"}
	user := "system:serviceaccount:" + ns + ":default"
	review := func() (bool, string) {
		r, err := api.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: attributes, User: user}}, metav1.CreateOptions{})
		must(t, err)
		l, err := api.LocalSubjectAccessReviews(ns).Create(ctx, &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: ns}, Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: attributes, User: user}}, metav1.CreateOptions{})
		must(t, err)
		if r.Status != l.Status {
			t.Errorf("the reviews differ: %+v, %+v", r.Status, l.Status)
		}
		return r.Status.Allowed, r.Status.Reason
	}
	if ok, reason := review(); ok {
		t.Errorf("allowed: %s", reason)
	}
	for _, path := range []string{"roles", "rolebindings"} {
		body := map[string]string{
			"roles":        `{"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["list"]}]}`,
			"rolebindings": `{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"ServiceAccount","name":"default"}]}`,
		}[path]
		if a := request(t, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/"+ns+"/"+path, body); a.code != 201 {
			t.Fatalf("%d %s", a.code, a.status.Message)
		}
	}
	eventually(t, "the right", func() error {
		if ok, reason := review(); !ok {
			return fmt.Errorf("denied: %s", reason)
		}
		return nil
	})
	_, err := api.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: attributes}}, metav1.CreateOptions{})
	errorSays(t, "nobody", err, 422, "at least one of user or group must be specified")
	rules, err := api.SelfSubjectRulesReviews().Create(ctx, &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: ns}}, metav1.CreateOptions{})
	must(t, err)
	if len(rules.Status.ResourceRules) == 0 || len(rules.Status.NonResourceRules) == 0 {
		t.Errorf("rules %+v", rules.Status)
	}
}

// [sig-auth] ServiceAccounts should allow opting out of API token automount; should mount an API token into pods.
func TestAutomount(t *testing.T) {
	ns := namespace(t)
	ctx := t.Context()
	for name, automount := range map[string]*bool{"mount": ptr.To(true), "nomount": ptr.To(false), "unset": nil} {
		_, err := client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}, AutomountServiceAccountToken: automount}, metav1.CreateOptions{})
		must(t, err)
		for suffix, pod := range map[string]*bool{"mount": ptr.To(true), "nomount": ptr.To(false), "unset": nil} {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name + "-" + suffix}}
			p.Spec = corev1.PodSpec{ServiceAccountName: name, AutomountServiceAccountToken: pod, Containers: []corev1.Container{{Name: "c", Image: "i"}}, SchedulingGates: []corev1.PodSchedulingGate{{Name: "a.b/wait"}}}
			p, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{})
			must(t, err)
			want := ptr.Deref(pod, ptr.Deref(automount, true))
			got := slices.ContainsFunc(p.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" && m.ReadOnly
			})
			if got != want {
				t.Errorf("%s: mounted is %v", p.Name, got)
			}
		}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PodSpec{ServiceAccountName: "nobody", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	_, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{})
	errorSays(t, "an account that isn't there", err, 403, `pods "x" is forbidden: error looking up service account `+ns+`/nobody: serviceaccount "nobody" not found`)
}
