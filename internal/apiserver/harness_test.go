package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/api/catalogue"
	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

// env is an API server on a real store.
type env struct {
	t      testing.TB
	url    string
	server *apiserver.Server
	store  *store.Store
	etcd   *clientv3.Client
	config *rest.Config
	client kubernetes.Interface
}

// byToken takes the bearer token for the user's name: "admin", "nobody", none.
var byToken = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, false, nil
	}
	u := &user.DefaultInfo{Name: name, Groups: []string{user.AllAuthenticated}}
	return &authenticator.Response{User: u}, true, nil
})

// adminsOnly lets "admin" do everything and others nothing but what their name allows ("reader": get, list, watch).
var adminsOnly = authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch name := a.GetUser().GetName(); {
	case name == "admin", name == "updater" && a.GetVerb() != "create", name == "reader" && a.IsReadOnly():
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
})

func newEnv(t testing.TB, change func(*apiserver.Config)) *env {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	db, err := etcd.Start(ctx, etcd.Config{Dir: t.TempDir(), Logger: quiet, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(ctx, db.Client(), store.Options{Logger: quiet, Rev: db.Rev, CompactEvery: -1, BookmarkEvery: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c := apiserver.Config{
		Store: st, Resources: catalogue.Builtin(), Authenticator: byToken, Authorizer: adminsOnly, Logger: quiet,
		Registerer: prometheus.NewRegistry(),
		Version:    version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+proa"},
	}
	if change != nil {
		change(&c)
	}
	s, err := apiserver.New(c)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		web.Close()
		st.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		cancel()
	})
	e := &env{t: t, url: web.URL, server: s, store: st, etcd: db.Client()}
	e.config = &rest.Config{Host: web.URL, BearerToken: "admin", QPS: -1, UserAgent: "tester/1.0"}
	e.client = kubernetes.NewForConfigOrDie(e.config)
	for _, r := range c.Resources {
		if r.Prefix == "" {
			continue
		}
		if err := st.Cache(r.Prefix).WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// namespace creates a namespace for a test.
func (e *env) namespace(name string) string {
	e.t.Helper()
	_, err := e.client.CoreV1().Namespaces().Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	return name
}

// answer is what a raw request got.
type answer struct {
	*http.Response
	body []byte
}

// do sends a raw request. Headers are "Name: value".
func (e *env) do(method, path, body string, headers ...string) answer {
	e.t.Helper()
	r, err := http.NewRequest(method, e.url+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer admin")
	r.Header.Set("User-Agent", "tester/1.0")
	if method == http.MethodPost || method == http.MethodPut {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer{resp, data}
}

// must sends a raw request and wants the code.
func (e *env) must(code int, method, path, body string, headers ...string) answer {
	e.t.Helper()
	a := e.do(method, path, body, headers...)
	if a.StatusCode != code {
		e.t.Fatalf("%s %s: %d, want %d: %s", method, path, a.StatusCode, code, a.body)
	}
	return a
}

// json decodes the answer.
func (a answer) json(t testing.TB, into any) {
	t.Helper()
	if err := json.NewDecoder(bytes.NewReader(a.body)).Decode(into); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// status decodes the answer as a Status.
func (a answer) status(t testing.TB) metav1.Status {
	t.Helper()
	var s metav1.Status
	a.json(t, &s)
	return s
}

func configMap(name string, data ...string) string {
	pairs := map[string]string{}
	for i := 0; i+1 < len(data); i += 2 {
		pairs[data[i]] = data[i+1]
	}
	encoded, _ := json.Marshal(pairs)
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":%s}`, name, encoded)
}
