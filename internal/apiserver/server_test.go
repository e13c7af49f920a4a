package apiserver_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/api/catalogue"
	"github.com/proa-k8s/proa/internal/apiserver"
)

func TestDiscovery(t *testing.T) {
	e := newEnv(t, nil)
	d := discovery.NewDiscoveryClientForConfigOrDie(e.config)
	for _, legacy := range []bool{false, true} {
		d.UseLegacyDiscovery = legacy
		groups, lists, err := d.ServerGroupsAndResources()
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]metav1.APIResource{}
		for _, l := range lists {
			for _, r := range l.APIResources {
				found[l.GroupVersion+"/"+r.Name] = r
			}
		}
		if groups[0].Name != "" || groups[0].PreferredVersion.Version != "v1" {
			t.Errorf("groups %+v", groups)
		}
		for _, r := range catalogue.Builtin() {
			for _, v := range r.Versions {
				got, ok := found[v.String()+"/"+r.Plural]
				if !ok || got.Kind != r.Kind || got.Namespaced != r.Namespaced || got.SingularName != r.Singular || len(got.Verbs) == 0 {
					t.Errorf("legacy %v: %s in %s: %+v", legacy, r.Plural, v, got)
				}
				for _, sub := range r.Subresources {
					if got, ok := found[v.String()+"/"+r.Plural+"/"+sub.Name]; !ok || len(got.Verbs) != len(sub.Verbs) {
						t.Errorf("legacy %v: %s/%s in %s: %+v", legacy, r.Plural, sub.Name, v, got)
					}
				}
			}
		}
	}
	accept := "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
	a := e.must(200, "GET", "/apis", "", accept)
	if !strings.Contains(string(a.body), `"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2"`) ||
		a.Header.Get("Content-Type") != "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" {
		t.Errorf("%s: %.100s", a.Header.Get("Content-Type"), a.body)
	}
	e.must(304, "GET", "/apis", "", accept, "If-None-Match: "+a.Header.Get("ETag"))
	v, err := d.ServerVersion()
	if err != nil || v.Minor != "37" {
		t.Errorf("version %+v, %v", v, err)
	}
	var index struct{ Paths []string }
	e.must(200, "GET", "/", "").json(t, &index)
	if !strings.Contains(strings.Join(index.Paths, " "), "/api/v1") {
		t.Errorf("paths %v", index.Paths)
	}
}

// TestResourcesComeAndGo wants a resource served from the moment it is added until it is removed.
func TestResourcesComeAndGo(t *testing.T) {
	all := catalogue.Builtin()
	e := newEnv(t, func(c *apiserver.Config) { c.Resources = nil })
	e.must(404, "GET", "/api/v1/configmaps", "")
	e.server.AddResources(all...)
	e.must(200, "GET", "/api/v1/configmaps", "")
	for _, r := range all {
		if r.Plural == "configmaps" {
			e.server.RemoveResource(r)
		}
	}
	e.must(404, "GET", "/api/v1/configmaps", "")
	if a := e.must(200, "GET", "/api/v1", ""); strings.Contains(string(a.body), "configmaps") {
		t.Errorf("still discovered: %s", a.body)
	}
}

func TestHealth(t *testing.T) {
	bad := errors.New("out of order")
	var broken error
	e := newEnv(t, func(c *apiserver.Config) {
		c.Checks = []apiserver.Check{{Name: "etcd", Live: true, Func: func(context.Context) error { return broken }}}
	})
	for _, path := range []string{"/healthz", "/livez", "/readyz", "/readyz/etcd", "/healthz/ping"} {
		if a := e.must(200, "GET", path, ""); string(a.body) != "ok" {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	if a := e.must(200, "GET", "/readyz?verbose&exclude=etcd", ""); string(a.body) != "[+]ping ok\n[+]etcd excluded: ok\n[+]caches ok\n[+]shutdown ok\nreadyz check passed\n" {
		t.Errorf("%s", a.body)
	}
	broken = bad
	if a := e.must(500, "GET", "/livez", ""); string(a.body) != "[+]ping ok\n[-]etcd failed: reason withheld\nlivez check failed\n" {
		t.Errorf("%s", a.body)
	}
	e.must(404, "GET", "/readyz/nothing", "")
}

func TestImpersonation(t *testing.T) {
	var seen user.Info
	e := newEnv(t, func(c *apiserver.Config) {
		c.Extra = map[string]http.Handler{"/whoami": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			seen, _ = apirequest.UserFrom(r.Context())
			if r.Header.Get("Impersonate-User") != "" || r.Header.Get("Authorization") != "" {
				t.Error("credentials reach handlers")
			}
		})}
		c.Authorizer = authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetVerb() == "impersonate" && (a.GetUser().GetName() != "admin" || a.GetName() == "god") {
				return authorizer.DecisionNoOpinion, "", nil
			}
			return authorizer.DecisionAllow, "", nil
		})
	})
	e.must(200, "GET", "/whoami", "", "Impersonate-User: jane", "Impersonate-Group: devs", "Impersonate-Extra-Scopes%2fa: view", "Impersonate-Uid: 7")
	if seen.GetName() != "jane" || strings.Join(seen.GetGroups(), ",") != "devs,system:authenticated" || seen.GetUID() != "7" || seen.GetExtra()["scopes/a"][0] != "view" {
		t.Errorf("seen %+v", seen)
	}
	e.must(200, "GET", "/whoami", "", "Impersonate-User: system:serviceaccount:ns:sa")
	if strings.Join(seen.GetGroups(), ",") != "system:serviceaccounts,system:serviceaccounts:ns,system:authenticated" {
		t.Errorf("seen %+v", seen)
	}
	e.must(200, "GET", "/whoami", "", "Impersonate-User: system:anonymous")
	if strings.Join(seen.GetGroups(), ",") != "system:unauthenticated" {
		t.Errorf("seen %+v", seen)
	}
	e.must(400, "GET", "/whoami", "", "Impersonate-Group: devs")
	a := e.must(403, "GET", "/whoami", "", "Impersonate-User: god")
	if s := a.status(t); s.Message != `users "god" is forbidden: User "admin" cannot impersonate resource "users" in API group "" at the cluster scope` {
		t.Errorf("%s", s.Message)
	}
	e.must(403, "GET", "/whoami", "", "Authorization: Bearer jane", "Impersonate-User: admin")
}

// TestCompression wants large answers compressed for clients that accept it, but not on the loopback.
func TestCompression(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	for _, name := range []string{"a", "b"} {
		e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap(name, "x", strings.Repeat("x", 200<<10)))
	}
	for _, path := range []string{"/api/v1/namespaces/ns/configmaps", "/api/v1/namespaces/ns/configmaps/a"} {
		for remote, want := range map[string]string{"192.0.2.1:1": "gzip", "127.0.0.1:1": ""} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Authorization", "Bearer admin")
			r.Header.Set("Accept-Encoding", "gzip")
			r.RemoteAddr = remote
			w := httptest.NewRecorder()
			e.server.ServeHTTP(w, r)
			if got := w.Header().Get("Content-Encoding"); got != want {
				t.Fatalf("%s to %s is encoded %q", path, remote, got)
			}
			body := io.Reader(w.Body)
			if want == "gzip" {
				gz, err := gzip.NewReader(w.Body)
				if err != nil {
					t.Fatal(err)
				}
				body = gz
			}
			data, err := io.ReadAll(body)
			if err != nil || !strings.HasSuffix(string(data), "}\n") || len(data) < 200<<10 {
				t.Errorf("%s to %s: %d bytes, %v", path, remote, len(data), err)
			}
		}
	}
}

// TestInFlight wants requests beyond the limit turned away, and administrators served.
func TestInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	e := newEnv(t, func(c *apiserver.Config) {
		c.MaxInFlight = 1
		c.Extra = map[string]http.Handler{"/slow": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			entered <- struct{}{}
			<-leave
		})}
	})
	var wg sync.WaitGroup
	wg.Go(func() { e.do("GET", "/slow", "") })
	<-entered
	a := e.must(429, "GET", "/version", "")
	if a.Header.Get("Retry-After") != "1" || string(a.body) != "Too many requests, please try again later.\n" {
		t.Errorf("%s %s", a.Header, a.body)
	}
	r := httptest.NewRequest("GET", "/version", nil)
	r = r.WithContext(apirequest.WithUser(r.Context(), &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}))
	w := httptest.NewRecorder()
	if e.server.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("an administrator gets %d", w.Code)
	}
	close(leave)
	wg.Wait()
	e.must(200, "GET", "/version", "")
}

func TestPanic(t *testing.T) {
	e := newEnv(t, func(c *apiserver.Config) {
		c.Extra = map[string]http.Handler{"/panic": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("ouch") })}
	})
	if s := e.must(500, "GET", "/panic", "").status(t); s.Reason != metav1.StatusReasonInternalError {
		t.Errorf("%+v", s)
	}
	a := e.must(200, "GET", "/metrics", "")
	if !strings.Contains(string(a.body), `apiserver_request_total{code="500",component="apiserver"`) {
		t.Errorf("%s", a.body)
	}
}

// chain is an admission chain that notes what it is asked, labels and refuses.
type chain struct {
	mu   sync.Mutex
	seen []string
}

func (c *chain) Handles(admission.Operation) bool { return true }

func (c *chain) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	c.note("admit", a)
	if cm, ok := a.GetObject().(*corev1.ConfigMap); ok {
		cm.Labels = map[string]string{"admitted": "yes"}
	}
	return nil
}

func (c *chain) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	c.note("validate", a)
	if cm, ok := a.GetObject().(*corev1.ConfigMap); ok && cm.Data["refuse"] != "" {
		return admission.NewForbidden(a, errors.New("no"))
	}
	return nil
}

func (c *chain) note(step string, a admission.Attributes) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, strings.Join([]string{step, string(a.GetOperation()), a.GetResource().Resource, a.GetNamespace(), a.GetName(), a.GetSubresource()}, " "))
}

func TestAdmission(t *testing.T) {
	c := &chain{}
	e := newEnv(t, func(config *apiserver.Config) { config.Admission = c })
	e.namespace("ns")
	var cm corev1.ConfigMap
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("x", "a", "1")).json(t, &cm)
	if cm.Labels["admitted"] != "yes" || strings.Contains(cm.ManagedFields[0].FieldsV1.GetRawString(), "labels") {
		t.Errorf("made %+v", cm)
	}
	a := e.must(403, "PATCH", "/api/v1/namespaces/ns/configmaps/x", `{"data":{"refuse":"1"}}`, "Content-Type: application/merge-patch+json")
	if s := a.status(t); s.Message != `configmaps "x" is forbidden: no` {
		t.Errorf("%s", s.Message)
	}
	e.must(200, "DELETE", "/api/v1/namespaces/ns/configmaps/x", "")
	want := []string{
		"admit CREATE namespaces ns ns ", "validate CREATE namespaces ns ns ", "admit CREATE configmaps ns x ", "validate CREATE configmaps ns x ",
		"admit UPDATE configmaps ns x ", "validate UPDATE configmaps ns x ", "admit DELETE configmaps ns x ", "validate DELETE configmaps ns x ",
	}
	if strings.Join(c.seen, "\n") != strings.Join(want, "\n") {
		t.Errorf("seen\n%s", strings.Join(c.seen, "\n"))
	}
}

// checking is an admission chain that says of itself that it changes nothing.
type checking struct{ chain }

func (c *checking) Mutates(admission.Attributes) bool { return false }

// Defaults apply a second time only if admission could have changed the object.
func TestDefaultsAfterAdmission(t *testing.T) {
	count := func(chain admission.Interface) (n int64) {
		var calls atomic.Int64
		e := newEnv(t, func(config *apiserver.Config) {
			config.Admission = chain
			for _, r := range config.Resources {
				if r.Plural == "configmaps" {
					r.Default = func(runtime.Object) { calls.Add(1) }
				}
			}
		})
		e.namespace("ns")
		calls.Store(0)
		e.must(201, "POST", "/api/v1/namespaces/ns/configmaps?dryRun=All", configMap("x", "a", "1"))
		return calls.Load()
	}
	if twice, once := count(&chain{}), count(&checking{}); once != twice-1 {
		t.Errorf("defaults are set %d times with a chain that changes objects, and %d times with one that doesn't", twice, once)
	}
}

// TestConcurrentUpdates wants every increment of many writers kept, by optimistic locking and by patches.
func TestConcurrentUpdates(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("x"))
	config := rest.CopyConfig(e.config)
	config.ContentType = runtime.ContentTypeProtobuf
	client := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("ns")
	var wg sync.WaitGroup
	const writers, writes = 4, 10
	for range writers {
		wg.Go(func() {
			for done := 0; done < writes; {
				cm, err := client.Get(ctx, "x", metav1.GetOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				if cm.Data == nil {
					cm.Data = map[string]string{}
				}
				cm.Data["n"] += "x"
				if _, err = client.Update(ctx, cm, metav1.UpdateOptions{}); err == nil {
					done++
				} else if !apierrors.IsConflict(err) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	cm, err := client.Get(ctx, "x", metav1.GetOptions{})
	if err != nil || len(cm.Data["n"]) != writers*writes {
		t.Errorf("%d of %d writes, %v", len(cm.Data["n"]), writers*writes, err)
	}
}
