package criconfig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func ptr[T any](v T) *T { return &v }

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}
	for in, want := range map[string]string{
		"": "", "plain": "plain", "$(A)": "1", "x$(A)y$(A)": "x1y1", "$(B)": "$(A)", "$(EMPTY)": "", "$(NONE)": "$(NONE)",
		"$$(A)": "$(A)", "$$$(A)": "$1", "$$$$(A)": "$$(A)", "$": "$", "$$": "$", "$A": "$A", "$(A": "$(A", "$()": "$()", "a$": "a$", "$(A)$": "1$",
	} {
		if got := Expand(in, values); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
	if got, err := ExpandStrict("$(A)/$(NONE)", values); err == nil || got != "" || !strings.Contains(err.Error(), `missing value for "NONE"`) {
		t.Errorf("ExpandStrict gives %q, %v", got, err)
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$(B)$")
	f.Fuzz(func(t *testing.T, s string) {
		out := Expand(s, map[string]string{"A": "x"})
		if !strings.Contains(s, "$") && out != s {
			t.Errorf("%q became %q", s, out)
		}
	})
}

func TestParseEnvFile(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "map[]",
		"A='1'\n# c\n\nB='two words'\n": "map[A:1 B:two words]",
		"A='x\ny'\nB='2'":               "map[A:x\ny B:2]",
		"A='1' # why\n":                 "map[A:1]",
		"A=1":                           "line 1: the value must be in single quotes",
		"A='1":                          "line 1: unterminated single quote",
		"A='1'x":                        "line 1: unexpected text after the value",
		"\njust text":                   "line 2: expected NAME='value'",
	} {
		got, err := ParseEnvFile(in)
		text := fmt.Sprint(got)
		if err != nil {
			text = err.Error()
		}
		if text != want {
			t.Errorf("ParseEnvFile(%q) = %q, want %q", in, text, want)
		}
	}
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add("A='1'\nB='x\ny'\n#")
	f.Fuzz(func(t *testing.T, s string) { _, _ = ParseEnvFile(s) })
}

func sources() *Sources {
	return &Sources{
		ConfigMap: func(_ context.Context, ns, name string) (*corev1.ConfigMap, error) {
			if name != "cm" {
				return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
			}
			return &corev1.ConfigMap{Data: map[string]string{"k": "v", "a=b": "skipped"}}, nil
		},
		Secret: func(_ context.Context, ns, name string) (*corev1.Secret, error) {
			if name != "s" {
				return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
			}
			return &corev1.Secret{Data: map[string][]byte{"p": []byte("q")}}, nil
		},
		Services: func(string) []*corev1.Service {
			return []*corev1.Service{
				{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
					Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "https", Port: 443, Protocol: "TCP"}}}},
				{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "my-svc"},
					Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.2", Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP"}}}},
				{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "headless"}, Spec: corev1.ServiceSpec{ClusterIP: "None"}},
			}
		},
	}
}

func TestEnv(t *testing.T) {
	node := &Node{Name: "node", HostIPs: []string{"192.0.2.1"}, Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}
	from := func(s corev1.EnvVarSource) []corev1.EnvVar { return []corev1.EnvVar{{Name: "X", ValueFrom: &s}} }
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	for name, test := range map[string]struct {
		c    corev1.Container
		want string // value of X, or the error
	}{
		"plain":    {corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "X", Value: "$(A)$(B)"}, {Name: "B", Value: "2"}}}, "1$(B)"},
		"service":  {corev1.Container{Env: []corev1.EnvVar{{Name: "X", Value: "$(MY_SVC_SERVICE_HOST):$(MY_SVC_PORT_80_TCP_PORT)"}}}, "10.96.0.2:80"},
		"from all": {corev1.Container{EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("cm")}}}, Env: []corev1.EnvVar{{Name: "X", Value: "$(P_k)"}}}, "v"},
		"key":      {corev1.Container{Env: from(corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("s"), Key: "p"}})}, "q"},
		"no such key": {corev1.Container{Env: from(corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("cm"), Key: "z"}})},
			"error: couldn't find key z in ConfigMap n/cm"},
		"no such object": {corev1.Container{Env: from(corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("z"), Key: "p"}})},
			`error: secret "z" not found`},
		"optional":          {corev1.Container{Env: from(corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("z"), Key: "p", Optional: ptr(true)}})}, "unset"},
		"label":             {corev1.Container{Env: from(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['l']"}})}, "m"},
		"pod IP":            {corev1.Container{Env: from(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}})}, "10.0.0.9"},
		"host IPs":          {corev1.Container{Env: from(corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.hostIPs"}})}, "192.0.2.1"},
		"limit of the node": {corev1.Container{Name: "c", Env: from(corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}})}, "2"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", Labels: map[string]string{"l": "m"}}}
			env, err := node.Env(t.Context(), sources(), pod, &test.c, []string{"10.0.0.9"})
			got := "unset"
			for _, kv := range env {
				if kv.Key == "X" {
					got = string(kv.Value)
				}
			}
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != test.want {
				t.Errorf("X is %q, want %q", got, test.want)
			}
		})
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n"}, Spec: corev1.PodSpec{EnableServiceLinks: ptr(false)}}
	env, err := node.Env(t.Context(), sources(), pod, &corev1.Container{}, nil)
	if err != nil || slices.ContainsFunc(env, func(kv *runtimeapi.KeyValue) bool { return strings.HasPrefix(kv.Key, "MY_SVC") }) ||
		!slices.ContainsFunc(env, func(kv *runtimeapi.KeyValue) bool { return kv.Key == "KUBERNETES_SERVICE_HOST" }) {
		t.Errorf("without links the environment is %v, %v", env, err)
	}
}

func TestNonRoot(t *testing.T) {
	node := &Node{}
	yes := &corev1.SecurityContext{RunAsNonRoot: ptr(true)}
	for name, test := range map[string]struct {
		sc   *corev1.SecurityContext
		user ImageUser
		want string
	}{
		"no demand":      {nil, ImageUser{}, ""},
		"image says":     {yes, ImageUser{UID: ptr(int64(7))}, ""},
		"image is root":  {yes, ImageUser{UID: ptr(int64(0))}, "container has runAsNonRoot and image will run as root"},
		"image is quiet": {yes, ImageUser{}, "container has runAsNonRoot and image will run as root"},
		"image has name": {yes, ImageUser{Username: "bob"}, "container has runAsNonRoot and image has non-numeric user (bob), cannot verify user is non-root"},
		"pod says root":  {&corev1.SecurityContext{RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(0))}, ImageUser{}, "container's runAsUser breaks non-root policy"},
		"pod says":       {&corev1.SecurityContext{RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(9))}, ImageUser{}, ""},
	} {
		_, err := node.containerSecurity(&corev1.Pod{}, &corev1.Container{Name: "c", SecurityContext: test.sc}, test.user)
		if err == nil && test.want != "" || err != nil && (test.want == "" || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestResources(t *testing.T) {
	for _, test := range []struct{ milli, shares, quota int64 }{{0, 2, 0}, {1, 2, 1000}, {10, 10, 1000}, {500, 512, 50000}, {2000, 2048, 200000}} {
		if Shares(test.milli) != test.shares || Quota(test.milli) != test.quota {
			t.Errorf("%dm: shares %d, quota %d", test.milli, Shares(test.milli), Quota(test.milli))
		}
	}
	for want, node := range map[string]*Node{
		"map[]":                   {LimitsSwap: true}, // there is nothing to say to version 1
		"map[memory.oom.group:1]": {CgroupV2: true},
		"map[memory.oom.group:1 memory.swap.max:0]": {CgroupV2: true, LimitsSwap: true},
	} {
		if got := fmt.Sprint(node.Resources(&corev1.Pod{}, &corev1.Container{}).Unified); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	node := &Node{Capacity: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1000Mi")}}
	burstable := &corev1.Container{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("100Mi")}}}
	for name, test := range map[string]struct {
		status corev1.PodQOSClass
		prio   int32
		want   int64
	}{
		"guaranteed": {corev1.PodQOSGuaranteed, 0, -997}, "best effort": {corev1.PodQOSBestEffort, 0, 1000},
		"burstable": {corev1.PodQOSBurstable, 0, 900}, "critical": {corev1.PodQOSBestEffort, 2000000000, -997},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Priority: &test.prio, Containers: []corev1.Container{*burstable}}, Status: corev1.PodStatus{QOSClass: test.status}}
		if got := node.OOMScoreAdj(pod, burstable); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestDNS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# x\nnameserver 192.0.2.53\nsearch example.com.\noptions timeout:1 ndots:2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	node := &Node{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", ResolvConf: file}
	for name, test := range map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"cluster":      {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, "[10.96.0.10] [n.svc.cluster.local svc.cluster.local cluster.local example.com] [ndots:5]"},
		"default":      {corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, "[192.0.2.53] [example.com] [timeout:1 ndots:2]"},
		"host network": {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}, "[192.0.2.53] [example.com] [timeout:1 ndots:2]"},
		"host network, cluster": {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirstWithHostNet, HostNetwork: true},
			"[10.96.0.10] [n.svc.cluster.local svc.cluster.local cluster.local example.com] [ndots:5]"},
		"none": {corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"1.2.3.4"}, Searches: []string{"a.b"},
			Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("1")}, {Name: "edns0"}}}}, "[1.2.3.4] [a.b] [ndots:1 edns0]"},
		"merged": {corev1.PodSpec{DNSPolicy: corev1.DNSDefault, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53", "1.1.1.1"},
			Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("9")}}}}, "[192.0.2.53 1.1.1.1] [example.com] [timeout:1 ndots:9]"},
	} {
		got, err := node.DNS(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "n"}, Spec: test.spec})
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(got.Servers, got.Searches, got.Options); text != test.want {
			t.Errorf("%s: %s, want %s", name, text, test.want)
		}
	}
}

func TestHostname(t *testing.T) {
	node := &Node{ClusterDomain: "cluster.local"}
	long := strings.Repeat("a", 62) + "-b"
	for name, test := range map[string]struct {
		pod          corev1.Pod
		host, domain string
	}{
		"name":      {corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, "p", ""},
		"cut":       {corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: long}}, strings.Repeat("a", 62), ""},
		"subdomain": {corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}, Spec: corev1.PodSpec{Hostname: "h", Subdomain: "s"}}, "h", "s.n.svc.cluster.local"},
	} {
		host, domain, err := node.Hostname(&test.pod)
		if err != nil || host != test.host || domain != test.domain {
			t.Errorf("%s: %s %s %v", name, host, domain, err)
		}
	}
}

func TestSysctls(t *testing.T) {
	for name, want := range map[string]bool{
		"kernel.shm_rmid_forced": true, "net/ipv4/tcp_syncookies": true, "kernel.msgmax": false, "net.core.somaxconn": true, "net.core2": false,
	} {
		if got := SysctlAllowed(name, []string{"net.core.*"}); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestSandboxSeccomp(t *testing.T) {
	privileged := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{SecurityContext: &corev1.SecurityContext{Privileged: ptr(true)}}}}}
	const own = "/run/profile.json"
	for _, test := range []struct {
		profile string
		pod     *corev1.Pod
		want    *runtimeapi.SecurityProfile
	}{
		{"", &corev1.Pod{}, &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}},
		{own, &corev1.Pod{}, &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: own}},
		{own, privileged, nil},
	} {
		node := &Node{SandboxSeccompProfile: test.profile}
		if got := node.sandboxSecurity(test.pod).Seccomp; got.String() != test.want.String() {
			t.Errorf("profile %q: %v, want %v", test.profile, got, test.want)
		}
	}
}

func TestStopSignal(t *testing.T) {
	for name, want := range map[corev1.Signal]runtimeapi.Signal{
		corev1.SIGUSR1:        runtimeapi.Signal_SIGNAL_SIGUSR1,
		corev1.SIGRTMINPLUS1:  runtimeapi.Signal_SIGNAL_SIGRTMINPLUS1,
		corev1.SIGRTMAXMINUS2: runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS2,
	} {
		got := StopSignal(name)
		if got != want || SignalName(got) != name {
			t.Errorf("%s: got %s and back %s", name, got, SignalName(got))
		}
	}
	if got := SignalName(StopSignal("nothing")); got != "" {
		t.Errorf("a signal that there is not: got %q", got)
	}
}
