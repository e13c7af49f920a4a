package core

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// newPod is a pod that is valid and has its defaults, changed by the functions.
func newPod(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "registry.local/web:1"}}},
	}
	for _, f := range change {
		f(pod)
	}
	defaultPod(pod)
	return pod
}

func podFromYAML(t testing.TB, spec string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", Labels: map[string]string{"app": "web"}}}
	if err := yaml.UnmarshalStrict([]byte(spec), &pod.Spec); err != nil {
		t.Fatalf("the test's own YAML: %v\n%s", err, spec)
	}
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "registry.local/web:1"}}
	}
	defaultPod(pod)
	return pod
}

// messages are errors as a client reads them.
func messages(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

// checkErrors compares the errors with what is wanted, in order. A want that ends with "..." is a prefix.
func checkErrors(t *testing.T, errs field.ErrorList, want ...string) {
	t.Helper()
	got := messages(errs)
	equal := slices.EqualFunc(got, want, func(g, w string) bool {
		if prefix, ok := strings.CutSuffix(w, "..."); ok {
			return strings.HasPrefix(g, prefix)
		}
		return g == w
	})
	if !equal {
		t.Errorf("errors:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestPodSpecValidation(t *testing.T) {
	const label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with " +
		"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
	c := func(s string) string { return "containers: [{name: c, image: 'i:1', " + s + "}]" }
	tests := []struct {
		name, spec string
		want       []string
	}{
		{"minimal", "{}", nil},
		{"container name", "containers: [{name: Web, image: 'i:1'}]", []string{
			`spec.containers[0].name: Invalid value: "Web": ` + label}},
		{"no name, no image", "containers: [{}]", []string{
			"spec.containers[0].name: Required value", "spec.containers[0].image: Required value"}},
		{"padded image", "containers: [{name: c, image: ' i:1'}]", []string{
			`spec.containers[0].image: Invalid value: " i:1": must not have leading or trailing whitespace`}},
		{"duplicate names", "containers: [{name: c, image: 'i:1'}, {name: c, image: 'i:1'}]", []string{
			`spec.containers[1].name: Duplicate value: "c"`}},
		{"init container with a container's name", "{containers: [{name: c, image: 'i:1'}], initContainers: [{name: c, image: 'i:1'}]}", []string{
			`spec.initContainers[0].name: Duplicate value: "c"`}},
		{"init container with a probe", "initContainers: [{name: i, image: 'i:1', livenessProbe: {exec: {command: [x]}}}]", []string{
			"spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"}},
		{"sidecar with a probe", "initContainers: [{name: i, image: 'i:1', restartPolicy: Always, startupProbe: {exec: {command: [x]}}}]", nil},
		{"bad policies", "{restartPolicy: Sometimes, dnsPolicy: Maybe}", []string{
			`spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`,
			`spec.dnsPolicy: Unsupported value: "Maybe": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"`}},
		{"pull policy", c("imagePullPolicy: Often"), []string{
			`spec.containers[0].imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"`}},

		{"port without number", c("ports: [{name: http}]"), []string{"spec.containers[0].ports[0].containerPort: Required value"}},
		{"port out of range", c("ports: [{containerPort: 70000}]"), []string{
			"spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"}},
		{"duplicate port names", c("ports: [{name: http, containerPort: 80}, {name: http, containerPort: 81}]"), []string{
			`spec.containers[0].ports[1].name: Duplicate value: "http"`}},
		{"port name too long", c("ports: [{name: a-name-that-is-too-long, containerPort: 80}]"), []string{
			`spec.containers[0].ports[0].name: Invalid value: "a-name-that-is-too-long": must be no more than 15 characters`}},
		{"protocol", c("ports: [{containerPort: 80, protocol: ICMP}]"), []string{
			`spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`}},
		{"host port twice", "containers: [{name: a, image: 'i:1', ports: [{containerPort: 80, hostPort: 80}]}, {name: b, image: 'i:1', ports: [{containerPort: 81, hostPort: 80}]}]",
			[]string{`spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"`}},
		{"host network with other host port", "{hostNetwork: true, containers: [{name: a, image: 'i:1', ports: [{containerPort: 80, hostPort: 8080}]}]}",
			[]string{"spec.containers[0].ports[0].hostPort: Invalid value: 8080: must match `containerPort` when `hostNetwork` is true"}},

		{"requests above limits", c("resources: {limits: {cpu: 1}, requests: {cpu: 2}}"), []string{
			`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`}},
		{"negative quantity", c("resources: {requests: {memory: '-1'}}"), []string{
			`spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0`}},
		{"unknown resource", c("resources: {requests: {speed: 1}}"), []string{
			`spec.containers[0].resources.requests[speed]: Invalid value: "speed": must be a standard resource type or fully qualified`,
			`spec.containers[0].resources.requests[speed]: Invalid value: "speed": must be a standard resource for containers`}},
		{"extended resource", c("resources: {limits: {example.com/gpu: 1}}"), nil},
		{"claim and its request", "{resourceClaims: [{name: r, resourceClaimName: x}], containers: [{name: c, image: 'i:1', resources: {claims: [{name: r, request: a}, {name: r}]}}]}", []string{
			`spec.containers[0].resources.claims[1]: Duplicate value: "r"`}},
		{"claims of the pod", "resources: {claims: [{name: r}]}", []string{
			"spec.resources.claims: Forbidden: claims cannot be set for Resources at pod-level"}},
		{"extended resource in parts", c("resources: {limits: {example.com/gpu: 500m}}"), []string{
			`spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer`,
			`spec.containers[0].resources.requests[example.com/gpu]: Invalid value: "500m": must be an integer`}},
		{"extended resource overcommitted", c("resources: {limits: {example.com/gpu: 2}, requests: {example.com/gpu: 1}}"), []string{
			`spec.containers[0].resources.requests: Invalid value: "1": must be equal to example.com/gpu limit of 2`}},
		{"extended resource without limit", c("resources: {requests: {example.com/gpu: 1}}"), []string{
			"spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources"}},
		{"huge pages", c("resources: {limits: {hugepages-2Mi: 4Mi, memory: 1Gi}}"), nil},
		{"huge pages alone", c("resources: {limits: {hugepages-2Mi: 4Mi}}"), []string{
			"spec.containers[0].resources: Forbidden: HugePages require cpu or memory"}},
		{"huge pages in parts", c("resources: {limits: {hugepages-2Mi: 3Mi, cpu: 1}, requests: {hugepages-2Mi: 3Mi}}"), []string{
			`spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`,
			`spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`}},
		{"claim that isn't there", c("resources: {claims: [{name: gpu}]}"), []string{
			`spec.containers[0].resources.claims[0]: Not found: "gpu": must be one of the names in pod.spec.resourceClaims which is empty`}},
		{"pod-level resources", "{resources: {requests: {cpu: 2}, limits: {cpu: 4}}, containers: [{name: c, image: 'i:1', resources: {requests: {cpu: 1}}}]}", nil},
		{"pod-level request too small", "{resources: {requests: {cpu: 500m}}, containers: [{name: c, image: 'i:1', resources: {requests: {cpu: 1}}}]}", []string{
			`spec.resources.requests[cpu]: Invalid value: "500m": must be greater than or equal to aggregate container requests of 1`}},
		{"pod-level resource that isn't supported", "resources: {requests: {ephemeral-storage: 1Gi}}", []string{
			`spec.resources.requests[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"`}},
		{"container limit above the pod's", "{resources: {limits: {cpu: 1}}, containers: [{name: c, image: 'i:1', resources: {requests: {cpu: 1}, limits: {cpu: 2}}}]}", []string{
			`spec.containers[0].resources.limits[cpu]: Invalid value: "2": must be less than or equal to pod limits of 1`}},

		{"env name", c("env: [{name: 'a=b'}]"), []string{
			`spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='`}},
		{"env source empty", c("env: [{name: A, valueFrom: {}}]"), []string{
			"spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"}},
		{"env source and value", c("env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]"), []string{
			"spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"}},
		{"env field", c("env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: B, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}]"), nil},
		{"env field unknown", c("env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.whoops}}}]"), []string{
			`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.whoops": error converting fieldPath: field label not supported: metadata.whoops`}},
		{"env field not for env", c("env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}]"), []string{
			`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"`}},
		{"env of a nameless secret", c("env: [{name: A, valueFrom: {secretKeyRef: {key: k}}}]"), []string{
			`spec.containers[0].env[0].valueFrom.secretKeyRef.name: Invalid value: "": a lowercase RFC 1123 subdomain must consist of...`}},
		{"env resource divisor", c("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 2}}}]"), []string{
			`spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource`}},
		{"env from nothing", c("envFrom: [{prefix: A_}]"), []string{
			"spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"}},
		{"env file", "{volumes: [{name: v}], containers: [{name: c, image: 'i:1', env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: ../x, key: K}}}]}]}", []string{
			`spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: "../x": must not contain '..'`}},

		{"probe without handler", c("livenessProbe: {}"), []string{
			"spec.containers[0].livenessProbe: Required value: must specify a handler type"}},
		{"probe with two", c("livenessProbe: {exec: {command: [x]}, tcpSocket: {port: 80}}"), []string{
			"spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"}},
		{"liveness success threshold", c("livenessProbe: {successThreshold: 2, tcpSocket: {port: 80}}"), []string{
			"spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"}},
		{"readiness grace", c("readinessProbe: {terminationGracePeriodSeconds: 2, tcpSocket: {port: http}}"), []string{
			"spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 2: must not be set for readinessProbes"}},
		{"negative probe numbers", c("readinessProbe: {periodSeconds: -1, tcpSocket: {port: 0}}"), []string{
			"spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
			"spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0"}},
		{"hook sleeps too long", c("lifecycle: {preStop: {sleep: {seconds: 31}}}"), []string{
			"spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"}},
		{"stop signal without os", c("lifecycle: {stopSignal: SIGUSR1}"), []string{
			"spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"}},
		{"stop signal", "{os: {name: linux}, containers: [{name: c, image: 'i:1', lifecycle: {stopSignal: SIGUSR1}}]}", nil},

		{"mount of no volume", c("volumeMounts: [{name: v, mountPath: /v}]"), []string{
			`spec.containers[0].volumeMounts[0].name: Not found: "v"`}},
		{"mount path twice", "{volumes: [{name: v}], containers: [{name: c, image: 'i:1', volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /v}]}]}", []string{
			`spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/v": must be unique`}},
		{"sub path up", "{volumes: [{name: v}], containers: [{name: c, image: 'i:1', volumeMounts: [{name: v, mountPath: /v, subPath: ../x}]}]}", []string{
			`spec.containers[0].volumeMounts.subPath: Invalid value: "../x": must not contain '..'`}},
		{"bidirectional", "{volumes: [{name: v}], containers: [{name: c, image: 'i:1', volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]}]}", []string{
			"spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers"}},
		{"recursive read-only", "{volumes: [{name: v}], containers: [{name: c, image: 'i:1', volumeMounts: [{name: v, mountPath: /v, recursiveReadOnly: Enabled}]}]}", []string{
			"spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true"}},
		{"device of a directory", "{volumes: [{name: v}], containers: [{name: c, image: 'i:1', volumeDevices: [{name: v, devicePath: /dev/x}]}]}", []string{
			`spec.containers[0].volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode`}},

		{"volume names", "volumes: [{name: v}, {name: v}, {name: V_}]", []string{
			`spec.volumes[1].name: Duplicate value: "v"`, `spec.volumes[2].name: Invalid value: "V_": ` + label}},
		{"mount of a bad volume", "{volumes: [{name: v, secret: {}}], containers: [{name: c, image: 'i:1', volumeMounts: [{name: v, mountPath: /v}]}]}", []string{
			"spec.volumes[0].secret.secretName: Required value", `spec.containers[0].volumeMounts[0].name: Not found: "v"`}},
		{"sub path twice", "{volumes: [{name: v}], containers: [{name: c, image: 'i:1', volumeMounts: [{name: v, mountPath: /v, subPath: a, subPathExpr: b}]}]}", []string{
			`spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: "b": subPathExpr and subPath are mutually exclusive`}},
		{"recursive read-only mode", "{volumes: [{name: v}], containers: [{name: c, image: 'i:1', volumeMounts: [{name: v, mountPath: /v, recursiveReadOnly: Always}]}]}", []string{
			`spec.containers[0].volumeMounts.recursiveReadOnly: Unsupported value: "Always": supported values: "Disabled", "Enabled", "IfPossible"`}},
		{"two sources", "volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}]", []string{
			"spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"}},
		{"host path", "volumes: [{name: v, hostPath: {path: /a/../b, type: Dir}}]", []string{
			`spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'`,
			`spec.volumes[0].hostPath.type: Unsupported value: "Dir": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"`}},
		{"secret", "volumes: [{name: v, secret: {defaultMode: 512, items: [{key: k, path: /abs}]}}]", []string{
			"spec.volumes[0].secret.secretName: Required value",
			"spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
			`spec.volumes[0].secret.items[0].path: Invalid value: "/abs": must be a relative path`}},
		{"config map", "volumes: [{name: v, configMap: {items: [{key: k, path: ..x}]}}]", []string{
			"spec.volumes[0].configMap.name: Required value",
			`spec.volumes[0].configMap.items[0].path: Invalid value: "..x": must not start with '..'`}},
		{"downward", "volumes: [{name: v, downwardAPI: {items: [{path: a}]}}]", []string{
			"spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"}},
		{"projected", "volumes: [{name: v, projected: {sources: [{configMap: {name: a, items: [{key: k, path: p}]}}, {secret: {name: b, items: [{key: k, path: p}]}}]}}]", []string{
			`spec.volumes[0].projected: Invalid value: "b": conflicting duplicate paths`}},
		{"token", "{serviceAccountName: a, volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 60}}]}}]}", []string{
			"spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"}},
		{"nfs", "volumes: [{name: v, nfs: {server: s, path: x}}]", []string{
			`spec.volumes[0].nfs.path: Invalid value: "x": must be an absolute path`}},
		{"claim", "volumes: [{name: v, persistentVolumeClaim: {}}]", []string{
			"spec.volumes[0].persistentVolumeClaim.claimName: Required value"}},
		{"ephemeral", "volumes: [{name: v, ephemeral: {volumeClaimTemplate: {spec: {}}}}]", []string{
			"spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
			"spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value"}},
		{"claim of an ephemeral volume", "volumes: [{name: v, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}, {name: w, persistentVolumeClaim: {claimName: p-v}}]", []string{
			`spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: "p-v": must not reference a PVC that gets created for an ephemeral volume`}},
		{"image volume", "volumes: [{name: v, image: {}}]", []string{"spec.volumes[0].image.reference: Required value"}},
		{"git", "volumes: [{name: v, gitRepo: {directory: ../x}}]", []string{
			"spec.volumes[0].gitRepo.repository: Required value", `spec.volumes[0].gitRepo.directory: Invalid value: "../x": must not contain '..'`}},

		{"user", "securityContext: {runAsUser: -1}", []string{
			"spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"}},
		{"sysctls", "{hostNetwork: true, securityContext: {sysctls: [{name: net.ipv4.ip_forward, value: '1'}, {name: 'A!', value: x}]}}", []string{
			`spec.securityContext.sysctls[0].name: Invalid value: "net.ipv4.ip_forward": may not be specified when 'hostNetwork' is true`,
			`spec.securityContext.sysctls[1].name: Invalid value: "A!": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`}},
		{"seccomp", "securityContext: {seccompProfile: {type: Localhost}}", []string{
			"spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"}},
		{"apparmor", "securityContext: {appArmorProfile: {type: X}}", []string{
			`spec.securityContext.appArmorProfile.type: Unsupported value: "X": supported values: "Localhost", "RuntimeDefault", "Unconfined"`}},
		{"unmasked proc", c("securityContext: {procMount: Unmasked}"), []string{
			"spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"}},
		{"user namespace on the host's network", "{hostUsers: false, hostNetwork: true}", []string{
			"spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false"}},
		{"shared and host's processes", "{hostPID: true, shareProcessNamespace: true}", []string{
			"spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled"}},
		{"windows user", "securityContext: {windowsOptions: {runAsUserName: '..domain\\user'}}", []string{
			`spec.securityContext.windowsOptions.runAsUserName: Invalid value: "..domain\\user": runAsUserName's Domain doesn't match the NetBios nor the DNS format`}},
		{"windows", "{os: {name: windows}, securityContext: {runAsUser: 1}}", []string{
			"spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod"}},
		{"os", "os: {name: plan9}", []string{`spec.os: Unsupported value: "plan9": supported values: "linux", "windows"`}},

		{"node affinity", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}]}]}}}", []string{
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"}},
		{"pod affinity", "affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, podAffinityTerm: {labelSelector: {}}}]}}", []string{
			"spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
			"spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty",
			`spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: "": name part must be non-empty`,
			`spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: "": name part must consist of...`}},
		{"label keys", "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z, labelSelector: {matchLabels: {a: b, c: d}}, matchLabelKeys: [a], mismatchLabelKeys: [c]}]}}", []string{
			`spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]: Invalid value: "a": exists in both matchLabelKeys and labelSelector`}},
		{"label values", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In, values: ['-x']}]}]}, " +
			"preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: a, operator: In, values: ['-x']}]}}]}}", []string{
			`spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0]: Invalid value: "-x": a valid label...`}},
		{"toleration", "tolerations: [{operator: Equal}, {key: a, operator: Exists, tolerationSeconds: 1}, {key: a, operator: Gt, value: x}]", []string{
			`spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when ` + "`key` is empty, which means \"match all values and all keys\"",
			"spec.tolerations[1].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
			`spec.tolerations[2].value: Invalid value: "x": ...`}},
		{"spread", "topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, matchLabelKeys: [a]}]", []string{
			"spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
			`spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{zone, DoNotSchedule}"`,
			"spec.topologySpreadConstraints[1].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"}},
		{"gates", "schedulingGates: [{name: a}, {name: a}]", []string{`spec.schedulingGates[1]: Duplicate value: "a"`}},

		{"no nameserver", "dnsPolicy: None", []string{"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"}},
		{"nameservers", "dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, x]}", []string{
			`spec.dnsConfig.nameservers: Invalid value: ["1.1.1.1","1.1.1.2","1.1.1.3","x"]: must not have more than 3 nameservers`,
			`spec.dnsConfig.nameservers[3]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`}},
		{"host alias", "hostAliases: [{ip: 010.0.0.1, hostnames: [A]}]", []string{
			`spec.hostAliases[0].ip: Invalid value: "010.0.0.1": must not have leading 0s`,
			`spec.hostAliases[0].hostnames[0]: Invalid value: "A": a lowercase RFC 1123 subdomain...`}},
		{"hostname", "{hostname: a.b, subdomain: A}", []string{
			`spec.hostname: Invalid value: "a.b": must not contain dots`, `spec.subdomain: Invalid value: "A": a lowercase RFC 1123 label...`}},
		{"deadline", "activeDeadlineSeconds: 0", []string{
			"spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"}},
		{"preemption", "preemptionPolicy: X", []string{
			`spec.preemptionPolicy: Unsupported value: "X": supported values: "PreemptLowerPriority", "Never"`}},
		{"restart rules", c("restartPolicyRules: [{action: Restart, exitCodes: {operator: In}}]"), []string{
			"spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
			"spec.containers[0].restartPolicyRules[0].exitCodes.values: Required value: must specify at least one value"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			checkErrors(t, validatePodCreate(context.Background(), podFromYAML(t, test.spec)), test.want...)
		})
	}
}

func TestPodCreateOnly(t *testing.T) {
	pod := newPod(func(p *corev1.Pod) {
		p.Spec.NodeName = "n"
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "i"}}}
		p.Annotations = map[string]string{corev1.PodDeletionCost: "01"}
	})
	checkErrors(t, validatePodCreate(context.Background(), pod),
		`metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "01": must be a 32bit integer`,
		"spec.ephemeralContainers: Forbidden: cannot be set on create",
		"spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared")
}

// TestProfileAnnotations: the old way of naming profiles must agree with the new one.
func TestProfileAnnotations(t *testing.T) {
	const apparmor, seccomp = "container.apparmor.security.beta.kubernetes.io/c", "container.seccomp.security.alpha.kubernetes.io/c"
	sc := func(s *corev1.SecurityContext) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = s }
	}
	local := "mine"
	tests := []struct {
		annotation, value string
		change            func(*corev1.Pod)
		want              []string
	}{
		{apparmor, "localhost/mine", func(*corev1.Pod) {}, nil},
		{apparmor, "mine", func(*corev1.Pod) {}, []string{
			`metadata.annotations[` + apparmor + `]: Invalid value: "mine": invalid AppArmor profile name: "mine"`}},
		{apparmor, "unconfined", sc(&corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}), []string{
			"spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match"}},
		{apparmor, "localhost/other", sc(&corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &local}}), []string{
			"spec.containers[0].securityContext.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match"}},
		{seccomp, "localhost/mine", sc(&corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &local}}), nil},
		{seccomp, "docker/default", sc(&corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}), []string{
			"spec.containers[0].securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match"}},
		{seccomp, "mine", func(*corev1.Pod) {}, []string{
			`metadata.annotations.` + seccomp + `: Invalid value: "mine": must be a valid seccomp profile`}},
		{seccomp, "localhost/../x", func(*corev1.Pod) {}, []string{
			`metadata.annotations.` + seccomp + `: Invalid value: "../x": must not contain '..'`}},
	}
	for _, test := range tests {
		t.Run(test.value, func(t *testing.T) {
			pod := newPod(test.change, func(p *corev1.Pod) { p.Annotations = map[string]string{test.annotation: test.value} })
			checkErrors(t, validatePodCreate(context.Background(), pod), test.want...)
		})
	}
}

func TestPodTemplateValidation(t *testing.T) {
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a b": "c"}},
		Spec: corev1.PodSpec{
			HostNetwork:         true,
			Containers:          []corev1.Container{{Name: "c", Image: " i", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "i"}}},
		},
	}
	DefaultPodTemplateSpec(&template)
	checkErrors(t, ValidatePodTemplateSpec(&template, field.NewPath("spec", "template"), PodOptions{}),
		`spec.template.labels: Invalid value: "a b": ...`,
		"spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template")
}

func TestPodDefaults(t *testing.T) {
	pod := podFromYAML(t, `
hostNetwork: true
serviceAccount: old
containers:
- name: a
  image: web
  ports: [{containerPort: 80}]
  resources: {limits: {cpu: 100u, memory: 1Gi}}
  readinessProbe: {httpGet: {port: 80}}
  livenessProbe: {grpc: {port: 81}}
  env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
- {name: b, image: "host:5000/web:latest"}
- {name: c, image: "web:1.2"}
- {name: d, image: "web@sha256:0123456789012345678901234567890123456789012345678901234567890123"}
volumes: [{name: v}, {name: s, secret: {secretName: x}}, {name: h, hostPath: {path: /}}]
`)
	spec := &pod.Spec
	checks := []struct {
		what      string
		got, want any
	}{
		{"restartPolicy", spec.RestartPolicy, corev1.RestartPolicyAlways},
		{"dnsPolicy", spec.DNSPolicy, corev1.DNSClusterFirst},
		{"schedulerName", spec.SchedulerName, "default-scheduler"},
		{"grace", *spec.TerminationGracePeriodSeconds, int64(30)},
		{"service links", *spec.EnableServiceLinks, true},
		{"security context", spec.SecurityContext, &corev1.PodSecurityContext{}},
		{"service account", spec.ServiceAccountName, "old"},
		{"host port", spec.Containers[0].Ports[0].HostPort, int32(80)},
		{"protocol", spec.Containers[0].Ports[0].Protocol, corev1.ProtocolTCP},
		{"limit rounded up", spec.Containers[0].Resources.Limits.Cpu().String(), "1m"},
		{"request from limit", spec.Containers[0].Resources.Requests.Memory().String(), "1Gi"},
		{"no tag", spec.Containers[0].ImagePullPolicy, corev1.PullAlways},
		{"latest", spec.Containers[1].ImagePullPolicy, corev1.PullAlways},
		{"tag", spec.Containers[2].ImagePullPolicy, corev1.PullIfNotPresent},
		{"digest", spec.Containers[3].ImagePullPolicy, corev1.PullIfNotPresent},
		{"message path", spec.Containers[0].TerminationMessagePath, "/dev/termination-log"},
		{"message policy", spec.Containers[0].TerminationMessagePolicy, corev1.TerminationMessageReadFile},
		{"probe", *spec.Containers[0].ReadinessProbe, corev1.Probe{
			ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80), Scheme: corev1.URISchemeHTTP}},
			TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3}},
		{"grpc service", *spec.Containers[0].LivenessProbe.GRPC.Service, ""},
		{"field version", spec.Containers[0].Env[0].ValueFrom.FieldRef.APIVersion, "v1"},
		{"empty volume", spec.Volumes[0].EmptyDir, &corev1.EmptyDirVolumeSource{}},
		{"secret mode", *spec.Volumes[1].Secret.DefaultMode, int32(0o644)},
		{"host path type", *spec.Volumes[2].HostPath.Type, corev1.HostPathUnset},
	}
	for _, check := range checks {
		if !equality.Semantic.DeepEqual(check.got, check.want) {
			t.Errorf("%s: %v, want %v", check.what, check.got, check.want)
		}
	}
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Name: "c", Image: "i",
		Ports:     []corev1.ContainerPort{{ContainerPort: 80}},
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}}}
	DefaultPodTemplateSpec(&template)
	if c := template.Spec.Containers[0]; c.Ports[0].HostPort != 0 || c.Resources.Requests != nil || template.Spec.EnableServiceLinks != nil {
		t.Errorf("a template got what only a Pod gets: %+v", template.Spec)
	}
}

func TestPodCreation(t *testing.T) {
	pod := newPod(func(p *corev1.Pod) {
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "1.2.3.4"}
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{}
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: "zone",
			WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: &metav1.LabelSelector{}, MatchLabelKeys: []string{"app"}}}
	})
	preparePodCreate(context.Background(), pod)
	if pod.Generation != 1 || pod.Status.Phase != corev1.PodPending || pod.Status.PodIP != "" || pod.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("generation %d, status %+v", pod.Generation, pod.Status)
	}
	if len(pod.Status.Conditions) != 1 || pod.Status.Conditions[0].Reason != "SchedulingGated" {
		t.Errorf("conditions %+v", pod.Status.Conditions)
	}
	if pod.Spec.SchedulingGroup != nil {
		t.Errorf("the field of a feature that is off was kept: %v", pod.Spec.SchedulingGroup)
	}
	want := []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: []string{"web"}}}
	if got := pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchExpressions; !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("merged selector %v", got)
	}
	checkErrors(t, validatePodCreate(context.Background(), pod))
}
