package nodeproxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/store"
)

// fixture is a node whose kubelet is a test server, and objects around it.
type fixture struct {
	handlers map[string]http.Handler
}

func newFixture(t *testing.T, kubelet http.HandlerFunc) *fixture {
	t.Helper()
	node := httptest.NewTLSServer(kubelet)
	t.Cleanup(node.Close)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "pod got %s %s", r.Method, r.URL) }))
	t.Cleanup(web.Close)
	webURL, err := url.Parse(web.URL)
	if err != nil {
		t.Fatal(err)
	}
	nodeURL, err := url.Parse(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	pod := func(name, nodeName string, containers ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: nodeName}, Status: corev1.PodStatus{PodIP: webURL.Hostname()}}
		for _, c := range containers {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: port(t, webURL)}}})
		}
		return p
	}
	pods := map[string]*corev1.Pod{}
	for _, p := range []*corev1.Pod{pod("one", "node", "a"), pod("two", "node", "a", "b"), pod("waiting", "", "a"), pod("lost", "gone", "a")} {
		pods[p.Name] = p
	}
	config := Config{
		TLS: node.Client().Transport.(*http.Transport).TLSClientConfig,
		Pod: func(_ context.Context, _, name string) (*corev1.Pod, error) {
			if p := pods[name]; p != nil {
				return p, nil
			}
			return nil, store.ErrNotFound
		},
		Node: func(_ context.Context, _, name string) (*corev1.Node, error) {
			if name != "node" {
				return nil, store.ErrNotFound
			}
			return &corev1.Node{Status: corev1.NodeStatus{
				Addresses:       []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "does-not-resolve"}, {Type: corev1.NodeInternalIP, Address: nodeURL.Hostname()}},
				DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: port(t, nodeURL)}},
			}}, nil
		},
		Service: func(_ context.Context, _, name string) (*corev1.Service, error) {
			if name != "svc" && name != "empty" {
				return nil, store.ErrNotFound
			}
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}, nil
		},
		Slices: func(context.Context, string) ([]*discoveryv1.EndpointSlice, error) {
			return []*discoveryv1.EndpointSlice{{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"kubernetes.io/service-name": "svc"}},
				Ports:      []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(port(t, webURL))}},
				Endpoints: []discoveryv1.Endpoint{
					{Addresses: []string{"192.0.2.77"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
					{Addresses: []string{webURL.Hostname()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}},
				},
			}}, nil
		},
	}
	handlers, closeIdle := Connectors(config)
	t.Cleanup(closeIdle)
	return &fixture{handlers}
}

func port(t *testing.T, u *url.URL) int32 {
	t.Helper()
	n, err := strconv.ParseInt(u.Port(), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

// get asks for a subresource, as the API server would after authorization.
func (f *fixture) get(t *testing.T, resource, name, subresource, rest string) *httptest.ResponseRecorder {
	t.Helper()
	path := "/api/v1/namespaces/default/" + resource + "/" + name + "/" + subresource + rest
	r := httptest.NewRequest(http.MethodGet, path, nil)
	info := &request.RequestInfo{Namespace: "default", Resource: resource, Name: name, Subresource: subresource}
	w := httptest.NewRecorder()
	f.handlers[resource+"/"+subresource].ServeHTTP(w, r.WithContext(request.WithRequestInfo(r.Context(), info)))
	return w
}

func TestLog(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("previous") == "true":
			http.Error(w, `previous terminated container "a" in pod "one" not found`, http.StatusBadRequest)
		default:
			fmt.Fprintf(w, "%s?%s", r.URL.Path, r.URL.RawQuery)
		}
	})
	for _, tc := range []struct {
		pod, query string
		code       int
		want       string // body, or message of a Status
	}{
		{"one", "", 200, "/containerLogs/default/one/a?"},
		{"one", "?follow=true&tailLines=5&sinceTime=2026-01-02T03:04:05Z", 200, "/containerLogs/default/one/a?follow=true&sinceTime=2026-01-02T03%3A04%3A05Z&tailLines=5"},
		{"two", "?container=b&limitBytes=7", 200, "/containerLogs/default/two/b?limitBytes=7"},
		{"waiting", "", 200, ""},
		{"two", "", 400, "a container name must be specified for pod two, choose one of: [a b]"},
		{"two", "?container=c", 400, "container c is not valid for pod two"},
		{"none", "", 404, `pods "none" not found`},
		{"lost", "", 404, `nodes "gone" not found`},
		{"one", "?previous=true", 400, `previous terminated container "a" in pod "one" not found`},
		{"one", "?tailLines=-1", 422, `PodLogOptions "" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`},
		{"one", "?limitBytes=0", 422, `PodLogOptions "" is invalid: limitBytes: Invalid value: 0: must be greater than 0`},
		{"one", "?sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z", 422, "at most one of `sinceTime` or `sinceSeconds` may be specified"},
		{"one", "?stream=Both", 422, `stream: Unsupported value: "Both": supported values: "All", "Stdout", "Stderr"`},
		{"one", "?tailLines=many", 400, "parameter tailLines"},
		{"one", "?sinceTime=yesterday", 400, "cannot parse"},
	} {
		w := f.get(t, "pods", tc.pod, "log", tc.query)
		check(t, tc.pod+tc.query, w, tc.code, tc.want)
	}
}

func check(t *testing.T, name string, w *httptest.ResponseRecorder, code int, want string) {
	t.Helper()
	if w.Code != code {
		t.Errorf("%s: status %d, want %d: %s", name, w.Code, code, w.Body)
		return
	}
	if code < 300 {
		if got := w.Body.String(); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		return
	}
	var s metav1.Status
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Errorf("%s: %v in %s", name, err, w.Body)
		return
	}
	if s.Kind != "Status" || int(s.Code) != code || !strings.Contains(s.Message, want) {
		t.Errorf("%s: got %+v, want code %d and message %q", name, s, code, want)
	}
}

func TestStreamsAreRefusedBeforeTheyBegin(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, tc := range []struct {
		pod, subresource, query string
		code                    int
		want                    string
	}{
		{"one", "exec", "?stdout=true", 400, "you must specify at least 1 command for the container"},
		{"one", "exec", "?command=ls&stdout=false", 400, "you must specify at least one of stdin, stdout, stderr"},
		{"two", "exec", "?command=ls", 400, "a container name must be specified for pod two"},
		{"waiting", "attach", "", 400, "pod waiting does not have a host assigned"},
		{"waiting", "portforward", "", 400, "pod waiting does not have a host assigned"},
		{"none", "portforward", "", 404, `pods "none" not found`},
	} {
		check(t, tc.pod+" "+tc.subresource+tc.query, f.get(t, "pods", tc.pod, tc.subresource, tc.query), tc.code, tc.want)
	}
}

func TestProxies(t *testing.T) {
	f := newFixture(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "kubelet got %s", r.URL) })
	for _, tc := range []struct {
		resource, name, rest string
		code                 int
		want                 string
	}{
		{"pods", "one", "/some/path?q=1", 200, "pod got GET /some/path?q=1"},
		{"pods", "http:one:web", "/", 200, "pod got GET /"},
		{"pods", "one:nope", "/", 503, `no port "nope" found for pod "one"`},
		{"services", "svc", "/x", 200, "pod got GET /x"},
		{"services", "http:svc:80", "/x", 200, "pod got GET /x"},
		{"services", "svc:http", "/x", 200, "pod got GET /x"},
		{"services", "svc:81", "/x", 503, `no service port "81" found for service "svc"`},
		{"services", "empty", "/x", 503, `no endpoints available for service "empty"`},
		{"services", "none", "/x", 404, `services "none" not found`},
		{"nodes", "node", "/healthz", 200, "kubelet got /healthz"},
		{"nodes", "none", "/healthz", 404, `nodes "none" not found`},
	} {
		check(t, tc.resource+"/"+tc.name, f.get(t, tc.resource, tc.name, "proxy", tc.rest), tc.code, tc.want)
	}
}

func TestStreamOptions(t *testing.T) {
	for query, want := range map[string]string{
		"stdin=true&stdout=true&tty=true&stderr=true": "{true true false true}",
		"stdout=1":                "{false true false false}",
		"":                        "{false true true false}",
		"tty=true":                "{false true false true}",
		"stdin=false&stderr=true": "{false false true false}",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := streamOptions(q)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: got %v, %v, want %s", query, got, err, want)
		}
	}
}
