package core

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

const plainService = `{metadata: {name: a, namespace: default}, spec: {selector: {a: b}, ports: [{port: 80}]}}`

func TestService(t *testing.T) {
	notIP := "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
	apitest.Run(t, Service(), plainService, []apitest.Case{
		{Name: "good"},
		{Name: "no ports", Patch: `{spec: {ports: []}}`, Want: []string{"spec.ports: Required value"}},
		{Name: "headless needs none", Patch: `{spec: {ports: [], clusterIP: None}}`},
		{Name: "type", Patch: `{spec: {type: Sideways}}`, Want: []string{
			`spec.type: Unsupported value: "Sideways": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`}},
		{Name: "ports", Patch: `{spec: {ports: [{port: 80}, {port: 80, name: x}, {port: 0, name: x, protocol: ICMP, targetPort: "-"}, {name: "A_", port: 70000, targetPort: 70000, appProtocol: "a b"}]}}`, Want: []string{
			`spec.ports[0].name: Required value`,
			`spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80,"targetPort":0}`,
			`spec.ports[2].name: Duplicate value: "x"`,
			`spec.ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive`,
			`spec.ports[2].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`,
			`spec.ports[2].targetPort: Invalid value: "-": must contain at least one letter (a-z)`,
			`spec.ports[2].targetPort: Invalid value: "-": must not begin or end with a hyphen`,
			`spec.ports[3].name: Invalid value: "A_": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			`spec.ports[3].port: Invalid value: 70000: must be between 1 and 65535, inclusive`,
			`spec.ports[3].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive`,
			`spec.ports[3].appProtocol: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
		}},
		{Name: "node port of ClusterIP", Patch: `{spec: {ports: [{port: 80, nodePort: 30000}]}}`, Want: []string{
			"spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"}},
		{Name: "duplicate node port", Patch: `{spec: {type: NodePort, ports: [{name: a, port: 80, nodePort: 30000}, {name: b, port: 81, nodePort: 30000}]}}`, Want: []string{
			"spec.ports[1].nodePort: Duplicate value: 30000"}},
		{Name: "one node port for two protocols", Patch: `{spec: {type: NodePort, ports: [{name: a, port: 53, nodePort: 30000}, {name: b, port: 53, protocol: UDP, nodePort: 30000}]}}`},
		{Name: "topology annotations", Patch: `{metadata: {annotations: {service.kubernetes.io/topology-mode: Auto, service.kubernetes.io/topology-aware-hints: x}}}`, Want: []string{
			`metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: "Auto": must match annotations[service.kubernetes.io/topology-aware-hints] when both are specified`}},
		{Name: "headless NodePort", Patch: `{spec: {type: NodePort, clusterIP: None}}`, Want: []string{
			`spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services`}},
		{Name: "ExternalName", Patch: `{spec: {type: ExternalName, externalName: example.org., ports: []}}`},
		{Name: "ExternalName without a name", Patch: `{spec: {type: ExternalName}}`, Want: []string{"spec.externalName: Required value"}},
		{Name: "ExternalName with addresses", Patch: `{spec: {type: ExternalName, externalName: a, clusterIP: 10.0.0.1, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack}}`, Want: []string{
			"spec.clusterIPs: Forbidden: may not be set for ExternalName services", "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
			"spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services"}},
		{Name: "affinity", Patch: `{spec: {sessionAffinity: Sticky}}`, Want: []string{
			`spec.sessionAffinity: Unsupported value: "Sticky": supported values: "ClientIP", "None"`}},
		{Name: "affinity for too long", Patch: `{spec: {sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}}}`, Want: []string{
			`spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400`}},
		{Name: "cluster IPs", Patch: `{spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2]}}`, Want: []string{
			"spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`"}},
		{Name: "only the plural", Patch: `{spec: {clusterIPs: [10.0.0.2]}}`, Want: []string{
			"spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: must be empty when `clusterIP` is not specified"}},
		{Name: "no IP", Patch: `{spec: {clusterIP: x}}`, Want: []string{`spec.clusterIPs[0]: Invalid value: "x": ` + notIP}},
		{Name: "None and more", Patch: `{spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, None]}}`, Want: []string{
			`spec.clusterIPs: Invalid value: ["10.0.0.1","None"]: 'None' must be the first and only value`}},
		{Name: "two IPs of a family", Patch: `{spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 10.0.0.2]}}`, Want: []string{
			`spec.clusterIPs: Invalid value: ["10.0.0.1","10.0.0.2"]: may specify no more than one IP for each IP family`}},
		{Name: "IP of the other family", Patch: `{spec: {clusterIP: 10.0.0.1, ipFamilies: [IPv6]}}`, Want: []string{
			"spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`"}},
		{Name: "families", Patch: `{spec: {ipFamilies: [IPv5, IPv4, IPv4], ipFamilyPolicy: Any}}`, Want: []string{
			`spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"`, `spec.ipFamilies[2]: Duplicate value: "IPv4"`,
			`spec.ipFamilyPolicy: Unsupported value: "Any": supported values: "PreferDualStack", "RequireDualStack", "SingleStack"`}},
		{Name: "external IPs", Patch: `{spec: {externalIPs: [127.0.0.1, 0.0.0.0, 169.254.1.1, 224.0.0.1, x]}}`, Want: []string{
			`spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
			`spec.externalIPs[1]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)`,
			`spec.externalIPs[2]: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)`,
			`spec.externalIPs[3]: Invalid value: "224.0.0.1": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)`,
			`spec.externalIPs[4]: Invalid value: "x": ` + notIP}},
		{Name: "load balancer's only", Patch: `{spec: {loadBalancerSourceRanges: [10.0.0.0/8], allocateLoadBalancerNodePorts: true, loadBalancerClass: a.b/c, healthCheckNodePort: 30000, externalTrafficPolicy: Local}}`, Want: []string{
			"spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
			"spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
			"spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
			"spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
			`spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services`}},
		{Name: "policies", Patch: `{spec: {type: NodePort, externalTrafficPolicy: Near, internalTrafficPolicy: Far, trafficDistribution: Random}}`, Want: []string{
			`spec.externalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"`,
			`spec.internalTrafficPolicy: Unsupported value: "Far": supported values: "Cluster", "Local"`,
			`spec.trafficDistribution: Unsupported value: "Random": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"`}},
		{Name: "selector", Patch: `{spec: {selector: {a: "b c"}}}`, Want: []string{
			`spec.selector: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`}},
		{Name: "warnings", Patch: `{spec: {clusterIP: None, externalName: x, sessionAffinity: ClientIP}}`, Warn: []string{
			"spec.SessionAffinity is ignored for headless services", `spec.externalName is ignored when spec.type is not "ExternalName"`}},
	})
}

func TestServiceUpdate(t *testing.T) {
	allocated := `{spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack}}`
	apitest.Run(t, Service(), plainService, []apitest.Case{
		{Name: "says nothing of addresses", Old: allocated},
		{Name: "changes the IP", Old: allocated, Patch: `{spec: {clusterIP: 10.0.0.2}}`, Want: []string{
			`spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set`}},
		{Name: "changes the family", Old: allocated, Patch: `{spec: {clusterIP: 10.0.0.1, ipFamilies: [IPv6]}}`, Want: []string{
			`spec.ipFamilies[0]: Invalid value: ["IPv6"]: may not change once set`,
			"spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
		}},
		{Name: "drops the second family", Old: `{spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, "fd00::1"], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}}`,
			Patch: `{spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack}}`, Want: []string{
				`spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to 'SingleStack' when releasing the secondary clusterIP`,
				`spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to 'SingleStack' when releasing the secondary ipFamily`}},
		{Name: "a headless one changes its families", Old: `{spec: {clusterIP: None, clusterIPs: [None], ipFamilies: [IPv4]}}`,
			Patch: `{spec: {clusterIP: None, clusterIPs: [None], ipFamilies: [IPv6]}}`},
		{Name: "becomes headless", Old: allocated, Patch: `{spec: {clusterIP: None, clusterIPs: [None]}}`, Want: []string{
			`spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set`}},
		{Name: "another port for health checks", Old: `{spec: {type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30100}}`,
			Patch: `{spec: {type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30101}}`, Want: []string{
				`spec.healthCheckNodePort: Forbidden: field is immutable`}},
		{Name: "changes the class", Old: `{spec: {type: LoadBalancer, loadBalancerClass: a/b}}`, Patch: `{spec: {type: LoadBalancer, loadBalancerClass: a/c}}`, Want: []string{
			`spec.loadBalancerClass: Invalid value: "a/c": may not change once set`}},
		{Name: "becomes an ExternalName", Old: allocated, Patch: `{spec: {type: ExternalName, externalName: a, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack}}`},
		{Name: "load balancer is done", Old: `{spec: {type: LoadBalancer}}`, Patch: `{spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {hostname: a.b}]}}}`, Subresource: "status"},
		{Name: "load balancer of a ClusterIP", Old: `{}`, Patch: `{status: {loadBalancer: {ingress: [{ip: 192.0.2.1, ipMode: VIP}]}}}`, Subresource: "status", Want: []string{
			"status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"}},
		{Name: "bad load balancer", Old: `{spec: {type: LoadBalancer}}`, Subresource: "status",
			Patch: `{spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: x}, {hostname: 10.0.0.1}, {ip: 10.0.0.1, ipMode: Magic}, {hostname: a, ipMode: VIP}]}}}`, Want: []string{
				`status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
				`status.loadBalancer.ingress[1].hostname: Invalid value: "10.0.0.1": must be a DNS name, not an IP address`,
				`status.loadBalancer.ingress[2].ipMode: Unsupported value: "Magic": supported values: "Proxy", "VIP"`,
				"status.loadBalancer.ingress[3].ipMode: Forbidden: may not be specified when `ip` is not set"}},
	})
}

// TestServiceTransitions checks what is kept and what is cleared when a service changes its type.
func TestServiceTransitions(t *testing.T) {
	loadBalancer := `{spec: {type: LoadBalancer, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], externalTrafficPolicy: Local, healthCheckNodePort: 30100,
		loadBalancerClass: a/b, ports: [{name: x, port: 80, nodePort: 30001}, {name: y, port: 81, nodePort: 30002}]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}`
	r := Service()
	old := apitest.Decode(t, r, plainService, loadBalancer).(*corev1.Service)
	change := func(patch string) *corev1.Service {
		svc := apitest.Decode(t, r, plainService, patch).(*corev1.Service)
		if errs := apitest.Apply(&r.Strategy, svc, old); len(errs) > 0 {
			t.Errorf("%s: %v", patch, errs)
		}
		return svc
	}
	ports := func(svc *corev1.Service) (list []int32) {
		for _, p := range svc.Spec.Ports {
			list = append(list, p.NodePort)
		}
		return list
	}
	if svc := change(`{spec: {type: NodePort, ports: [{name: y, port: 81}, {name: z, port: 83}]}}`); !slices.Equal(ports(svc), []int32{30002, 0}) || svc.Spec.ClusterIP != "10.0.0.1" {
		t.Errorf("NodePort: %+v", svc.Spec)
	}
	if svc := change(`{spec: {type: LoadBalancer, externalTrafficPolicy: Local, loadBalancerClass: a/b, ports: [{name: x, port: 80}, {name: y, port: 81, nodePort: 30001}]}}`); !slices.Equal(ports(svc), []int32{0, 30001}) || svc.Spec.HealthCheckNodePort != 30100 {
		t.Errorf("a node port moved: %+v", svc.Spec)
	}
	none := old.DeepCopy()
	none.Spec.AllocateLoadBalancerNodePorts = ptr.To(false)
	if apitest.Apply(&r.Strategy, none, old); !slices.Equal(ports(none), []int32{30001, 30002}) {
		t.Errorf("node ports went on their own: %+v", none.Spec)
	}
	none.Spec.Ports[0].NodePort = 0
	if apitest.Apply(&r.Strategy, none, old); !slices.Equal(ports(none), []int32{0, 30002}) {
		t.Errorf("a node port that was removed is back: %+v", none.Spec)
	}
	svc := old.DeepCopy()
	svc.Spec.Type = corev1.ServiceTypeClusterIP
	if errs := apitest.Apply(&r.Strategy, svc, old); len(errs) > 0 {
		t.Error(errs)
	}
	if s := svc.Spec; !slices.Equal(ports(svc), []int32{0, 0}) || s.HealthCheckNodePort != 0 || s.ExternalTrafficPolicy != "" ||
		s.AllocateLoadBalancerNodePorts != nil || s.LoadBalancerClass != nil || s.ClusterIP != "10.0.0.1" {
		t.Errorf("ClusterIP: %+v", s)
	}
}

func TestServiceRow(t *testing.T) {
	for _, tc := range []struct{ patch, want string }{
		{`{spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1]}}`, "ClusterIP 10.0.0.1 <none> 80/TCP a=b"},
		{`{spec: {type: NodePort, clusterIPs: [10.0.0.1], ports: [{port: 8080, nodePort: 30001}, {port: 53, protocol: UDP}], selector: null}}`, "NodePort 10.0.0.1 <none> 8080:30001/TCP,53/UDP <none>"},
		{`{spec: {type: LoadBalancer}}`, "LoadBalancer <none> <pending> 80/TCP a=b"},
		{`{spec: {type: LoadBalancer, externalIPs: [192.0.2.9]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {hostname: x}]}}}`, "LoadBalancer <none> 192.0.2.1,x,192.0.2.9 80/TCP a=b"},
		{`{spec: {type: ExternalName, externalName: baidu.com, ports: []}}`, "ExternalName <none> baidu.com <none> a=b"},
		{`{spec: {clusterIP: None, clusterIPs: [None]}}`, "ClusterIP None <none> 80/TCP a=b"},
	} {
		row := serviceRow(apitest.Decode(t, Service(), plainService, tc.patch).(*corev1.Service))
		got := row[1].(string)
		for _, i := range []int{2, 3, 4, 6} {
			got += " " + row[i].(string)
		}
		if got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}
