package server

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/kubelet/server/logs"
)

func TestParseLogQuery(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	all := logs.Options{TailLines: -1, LimitBytes: -1}
	tests := []struct {
		query string
		want  logRequest
		err   string
	}{
		{query: "", want: logRequest{options: all}},
		{query: "follow=true&previous=false&timestamps", want: logRequest{follow: true,
			options: logs.Options{TailLines: -1, LimitBytes: -1, Timestamps: true}}},
		{query: "tailLines=0&limitBytes=7", want: logRequest{options: logs.Options{TailLines: 0, LimitBytes: 7}}},
		{query: "sinceSeconds=5", want: logRequest{options: logs.Options{TailLines: -1, LimitBytes: -1, Since: now.Add(-5 * time.Second)}}},
		{query: "sinceTime=2026-01-02T03:04:00Z", want: logRequest{options: logs.Options{TailLines: -1, LimitBytes: -1, Since: now.Add(-5 * time.Second)}}},
		{query: "stream=Stderr", want: logRequest{options: logs.Options{TailLines: -1, LimitBytes: -1, Stream: "stderr"}}},
		{query: "stream=All&tailLines=1", want: logRequest{options: logs.Options{TailLines: 1, LimitBytes: -1}}},
		{query: "tailLines=-1", err: "tailLines: Invalid value: -1: must be greater than or equal to 0"},
		{query: "limitBytes=0", err: "limitBytes: Invalid value: 0: must be greater than or equal to 1"},
		{query: "sinceSeconds=0", err: "sinceSeconds: Invalid value: 0"},
		{query: "sinceSeconds=x", err: `sinceSeconds: Invalid value: "x": must be an integer`},
		{query: "sinceTime=yesterday", err: `sinceTime: Invalid value: "yesterday"`},
		{query: "sinceSeconds=5&sinceTime=2026-01-02T03:04:00Z", err: "at most one of `sinceTime` or `sinceSeconds` may be specified"},
		{query: "follow=maybe", err: `follow: Invalid value: "maybe": must be a boolean`},
		{query: "stream=stdout", err: `stream: Unsupported value: "stdout": supported values: "All", "Stderr", "Stdout"`},
		{query: "stream=Stdout&tailLines=1", err: "`tailLines` and specific `stream` are mutually exclusive for now"},
	}
	for _, test := range tests {
		query, err := url.ParseQuery(test.query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseLogQuery(query, now)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: got error %v, want %s", test.query, err, test.err)
			}
			continue
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(logRequest{})); err != nil || diff != "" {
			t.Errorf("%s: %v %s", test.query, err, diff)
		}
	}
}

func TestChooseAttempt(t *testing.T) {
	running := func(id string) *criapi.Container {
		return &criapi.Container{Id: id, State: criapi.ContainerState_CONTAINER_RUNNING}
	}
	exited := func(id string) *criapi.Container {
		return &criapi.Container{Id: id, State: criapi.ContainerState_CONTAINER_EXITED}
	}
	last := func(id string) *corev1.ContainerStatus {
		return &corev1.ContainerStatus{LastTerminationState: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://" + id}}}
	}
	tests := []struct {
		name     string
		attempts []*criapi.Container
		status   *corev1.ContainerStatus
		previous bool
		want     string
	}{
		{"nothing", nil, nil, false, ""},
		{"nothing before nothing", nil, last("1"), true, ""},
		{"newest", []*criapi.Container{running("2"), exited("1")}, last("1"), false, "2"},
		{"previous", []*criapi.Container{running("2"), exited("1")}, last("1"), true, "1"},
		{"previous, status is late", []*criapi.Container{running("2"), exited("1")}, nil, true, "1"},
		{"first one has no previous", []*criapi.Container{running("1")}, &corev1.ContainerStatus{}, true, ""},
		{"first one has ended for good", []*criapi.Container{exited("1")}, &corev1.ContainerStatus{}, true, ""},
		{"waiting to be started again: newest", []*criapi.Container{exited("2"), exited("1")}, last("2"), false, "2"},
		{"waiting to be started again: previous", []*criapi.Container{exited("2"), exited("1")}, last("2"), true, "2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := chooseAttempt(test.attempts, test.status, test.previous).GetId(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestRequestAttributes(t *testing.T) {
	tests := []struct {
		method, path, verb string
		subresources       []string
	}{
		{"GET", "/metrics", "get", []string{"metrics"}},
		{"GET", "/metrics/resource", "get", []string{"metrics"}},
		{"GET", "/metricsfoo", "get", []string{"proxy"}},
		{"GET", "/stats/summary", "get", []string{"stats"}},
		{"GET", "/logs/x", "get", []string{"log"}},
		{"GET", "/pods", "get", []string{"pods", "proxy"}},
		{"GET", "/runningpods/", "get", []string{"pods", "proxy"}},
		{"GET", "/healthz/ping", "get", []string{"healthz", "proxy"}},
		{"GET", "/containerLogs/a/b/c", "get", []string{"proxy"}},
		{"POST", "/exec/a/b/c", "create", []string{"proxy"}},
		{"DELETE", "/x", "delete", []string{"proxy"}},
		{"OPTIONS", "/x", "", []string{"proxy"}},
	}
	for _, test := range tests {
		var got []string
		for _, a := range requestAttributes(&user.DefaultInfo{}, "n1", httptest.NewRequest(test.method, test.path, nil)) {
			got = append(got, a.GetSubresource())
			if a.GetVerb() != test.verb || a.GetName() != "n1" || a.GetResource() != "nodes" || !a.IsResourceRequest() {
				t.Errorf("%s %s: %+v", test.method, test.path, a)
			}
		}
		if diff := cmp.Diff(test.subresources, got); diff != "" {
			t.Errorf("%s %s: %s", test.method, test.path, diff)
		}
	}
}

func TestReadNode(t *testing.T) {
	var u nodeUsage
	err := u.parseStat([]byte("cpu  100 20 30 4000 50 6 7 8 9 10\ncpu0 1 2 3\nintr 5\nbtime 1700000000\n"))
	if err != nil || u.cpu != 1710*time.Millisecond || u.bootTime.Unix() != 1700000000 {
		t.Errorf("got %v, %v, %v", u.cpu, u.bootTime, err)
	}
	if err := u.parseStat([]byte("cpu x 20 30 4000 50 6 7 8 9 10\n")); err == nil {
		t.Error("nonsense is taken for a number")
	}
	u.parseMeminfo([]byte("MemTotal: 1000 kB\nMemFree:  300 kB\nInactive(file): 200 kB\nAnonPages: 50 kB\nSwapTotal: 10 kB\nSwapFree: 4 kB\nHugePages_Total: 0\n"))
	if u.memoryUsage != 700<<10 || u.workingSet != 500<<10 || u.rss != 50<<10 || u.swapUsage != 6<<10 {
		t.Errorf("got %+v", u)
	}
	u.parseNetDev([]byte("Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth1: 5 1 2 0 0 0 0 0 7 1 3 0 0 0 0 0\n" +
		"  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\nvethab: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"))
	if len(u.interfaces) != 2 || u.interfaces[0].Name != "eth0" {
		t.Fatalf("got %+v", u.interfaces)
	}
	want := stats.InterfaceStats{Name: "eth1", RxBytes: ptr.To[uint64](5), RxErrors: ptr.To[uint64](2), TxBytes: ptr.To[uint64](7), TxErrors: ptr.To[uint64](3)}
	if diff := cmp.Diff(want, u.interfaces[1]); diff != "" {
		t.Error(diff)
	}
}

func TestRates(t *testing.T) {
	r := rates{last: map[string]sample{}}
	began := time.Unix(1000, 0)
	steps := []struct {
		after time.Duration
		total uint64
		want  *uint64
	}{
		{0, 100, nil},
		{100 * time.Millisecond, 200, nil},
		{2 * time.Second, 2100, ptr.To[uint64](1000)},
		{2500 * time.Millisecond, 9999, ptr.To[uint64](1000)},
		{4 * time.Second, 2100, ptr.To[uint64](0)},
		{6 * time.Second, 5, nil},
		{8 * time.Second, 25, ptr.To[uint64](10)},
	}
	for _, step := range steps {
		if diff := cmp.Diff(step.want, r.of("a", step.total, began.Add(step.after))); diff != "" {
			t.Errorf("after %v: %s", step.after, diff)
		}
	}
	r.forget(map[string]bool{})
	if len(r.last) != 0 {
		t.Error("samples of what is gone are kept")
	}
}

func TestRunningPods(t *testing.T) {
	c := func(uid, pod, name string) *criapi.Container {
		return &criapi.Container{Image: &criapi.ImageSpec{Image: "i"}, Labels: map[string]string{
			"io.kubernetes.pod.uid": uid, "io.kubernetes.pod.name": pod, "io.kubernetes.pod.namespace": "ns", "io.kubernetes.container.name": name}}
	}
	list := runningPods([]*criapi.Container{c("1", "a", "x"), c("2", "b", "y"), c("1", "a", "z")})
	if len(list.Items) != 2 || list.Items[0].Name != "a" || len(list.Items[0].Spec.Containers) != 2 || list.Items[1].Namespace != "ns" {
		t.Errorf("got %+v", list)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration is accepted")
	}
}

var _ http.Handler = (*Server)(nil)

func TestPressure(t *testing.T) {
	want := &stats.PSIStats{
		Some: stats.PSIData{Avg10: 1.5, Avg60: 0.25, Avg300: 0, Total: 3_000_000},
		Full: stats.PSIData{Avg300: 2, Total: 7000},
	}
	got := parsePressure("some avg10=1.50 avg60=0.25 avg300=0.00 total=3000\nfull avg10=0.00 avg60=0.00 avg300=2.00 total=7\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := parsePressure("some avg10=x"); got != nil {
		t.Errorf("nonsense is %v", got)
	}
	from := &criapi.PsiStats{Some: &criapi.PsiData{Avg10: 1.5, Avg60: 0.25, Total: 3_000_000}, Full: &criapi.PsiData{Avg300: 2, Total: 7000}}
	if diff := cmp.Diff(want, pressure(from)); diff != "" || pressure(nil) != nil {
		t.Error(diff)
	}
}

func TestPodStats(t *testing.T) {
	eth0 := &criapi.NetworkInterfaceUsage{Name: "eth0", RxBytes: &criapi.UInt64Value{Value: 7}}
	psi := &criapi.PsiStats{Some: &criapi.PsiData{Total: 5}}
	pod := podStats(&criapi.PodSandboxStats{Linux: &criapi.LinuxPodSandboxStats{
		Cpu:        &criapi.CpuUsage{Psi: psi},
		Memory:     &criapi.MemoryUsage{Psi: psi},
		Io:         &criapi.IoUsage{Psi: psi},
		Network:    &criapi.NetworkUsage{DefaultInterface: eth0, Interfaces: []*criapi.NetworkInterfaceUsage{eth0}},
		Containers: []*criapi.ContainerStats{{}},
	}})
	if n := pod.Network; n.Name != "eth0" || *n.RxBytes != 7 || len(n.Interfaces) != 1 {
		t.Errorf("network: %+v", n)
	}
	if pod.CPU.PSI.Some.Total != 5 || pod.Memory.PSI.Some.Total != 5 || pod.IO.PSI.Some.Total != 5 || pod.Containers[0].IO != nil {
		t.Errorf("pressure: %+v", pod)
	}
}
