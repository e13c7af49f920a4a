package apiserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/proa-k8s/proa/internal/apiserver"
)

func TestMetrics(t *testing.T) {
	e := newEnv(t, func(config *apiserver.Config) {
		config.Connectors = map[string]http.Handler{"pods/log": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("words"))
		})}
	})
	e.namespace("ns")
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", `{"metadata":{"name":"a"}}`)
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps?dryRun=All", `{"metadata":{"name":"b"}}`)
	e.must(200, "GET", "/api/v1/namespaces/ns/configmaps/a", "")
	e.must(200, "GET", "/api/v1/configmaps", "")
	e.must(200, "GET", "/api/v1/namespaces/ns/configmaps?watch=1&timeoutSeconds=1", "")
	e.must(200, "GET", "/api/v1/namespaces/ns/pods/p/log", "")
	e.must(200, "GET", "/api/v1/namespaces/ns/endpoints", "")
	e.must(404, "GET", "/api/v1/namespaces/ns/whatever", "")
	e.must(200, "GET", "/readyz", "")
	series := func() string { return string(e.must(200, "GET", "/metrics", "").body) }
	text := series()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(text, `verb="WATCH"`) && time.Now().Before(deadline); text = series() {
		time.Sleep(time.Millisecond) // counted after the client has seen its end
	}
	for _, want := range []string{
		`apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="201",component="apiserver",dry_run="All",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="cluster",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="log",verb="CONNECT",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="",scope="",subresource="/readyz",verb="GET",version=""} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="",scope="namespace",subresource="",verb="LIST",version=""} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="All",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1"} 1`,
		`apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1",le="0.005"}`,
		`apiserver_request_sli_duration_seconds_bucket{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1",le="60"} 1`,
		`apiserver_response_sizes_bucket{component="apiserver",group="",resource="configmaps",scope="cluster",subresource="",verb="LIST",version="v1",le="1000"}`,
		`apiserver_response_sizes_bucket{component="apiserver",group="",resource="configmaps",scope="cluster",subresource="",verb="LIST",version="v1",le="1e+09"}`,
		`apiserver_longrunning_requests{component="apiserver",group="",resource="pods",scope="resource",subresource="log",verb="CONNECT",version="v1"} 0`,
		`apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1`,
		`apiserver_watch_events_total{group="",resource="configmaps",version="v1"} 1`,
		`apiserver_watch_events_sizes_bucket{group="",resource="configmaps",version="v1",le="131072"} 1`,
		`git_version="v1.37.2+proa"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	for _, not := range []string{`apiserver_request_sli_duration_seconds_bucket{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1",le="0.025"}`, "whatever"} {
		if strings.Contains(text, not) {
			t.Errorf("there is %s", not)
		}
	}
	if t.Failed() {
		for _, line := range strings.Split(text, "\n") {
			if !strings.Contains(line, "_bucket") {
				t.Log(line)
			}
		}
	}
}
