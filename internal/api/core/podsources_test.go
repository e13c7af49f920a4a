package core

import (
	"context"
	"testing"
)

func TestVolumeSources(t *testing.T) {
	const at = "spec.volumes[0]."
	tests := []struct {
		source string
		want   []string
	}{
		{"emptyDir: {sizeLimit: '-1'}", []string{at + "emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"}},
		{"iscsi: {targetPortal: p, iqn: 'iqn.2015-02.example.com:test', lun: 256}", []string{
			at + "iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive"}},
		{"iscsi: {targetPortal: p, iqn: x, chapAuthSession: true}", []string{
			at + `iscsi.iqn: Invalid value: "x": must be valid format`, at + "iscsi.secretRef: Required value"}},
		{"iscsi: {targetPortal: p, iqn: eui.0123456789abcdef, initiatorName: bad}", []string{
			at + `iscsi.initiatorname: Invalid value: "bad": must be valid format`}},
		{"glusterfs: {}", []string{at + "glusterfs.endpoints: Required value", at + "glusterfs.path: Required value"}},
		{"rbd: {}", []string{at + "rbd.monitors: Required value", at + "rbd.image: Required value"}},
		{"cephfs: {}", []string{at + "cephfs.monitors: Required value"}},
		{"fc: {}", []string{at + "fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"}},
		{"fc: {targetWWNs: [a]}", []string{at + "fc.lun: Required value: lun is required if targetWWNs is specified"}},
		{"fc: {targetWWNs: [a], wwids: [b]}", []string{
			at + `fc.targetWWNs: Invalid value: ["a"]: targetWWNs and wwids can not be specified simultaneously`}},
		{"flexVolume: {options: {kubernetes.io/x: z}}", []string{at + "flexVolume.driver: Required value",
			at + `flexVolume.options[kubernetes.io/x]: Invalid value: "kubernetes.io/x": kubernetes.io and k8s.io namespaces are reserved`}},
		{"flocker: {}", []string{at + "flocker: Required value: one of datasetName and datasetUUID is required"}},
		{"flocker: {datasetName: a/b}", []string{at + `flocker.datasetName: Invalid value: "a/b": must not contain '/'`}},
		{"quobyte: {registry: host, volume: v}", []string{
			at + `quobyte.registry: Invalid value: "host": must be a host:port pair or multiple pairs separated by commas`}},
		{"quobyte: {registry: 'a:1,b:2'}", []string{at + "quobyte.volume: Required value"}},
		{"scaleIO: {}", []string{at + "scaleIO.gateway: Required value", at + "scaleIO.system: Required value", at + "scaleIO.volumeName: Required value"}},
		{"storageos: {secretRef: {}}", []string{at + "storageos.volumeName: Required value", at + "storageos.secretRef.name: Required value"}},
		{"gcePersistentDisk: {partition: 256}", []string{at + "gcePersistentDisk.pdName: Required value",
			at + "gcePersistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive"}},
		{"awsElasticBlockStore: {}", []string{at + "awsElasticBlockStore.volumeID: Required value"}},
		{"cinder: {}", []string{at + "cinder.volumeID: Required value"}},
		{"azureFile: {}", []string{at + "azureFile.secretName: Required value", at + "azureFile.shareName: Required value"}},
		{"azureDisk: {diskName: d, diskURI: x, cachingMode: All}", []string{
			at + `azureDisk.cachingMode: Unsupported value: "All": supported values: "None", "ReadOnly", "ReadWrite"`,
			at + `azureDisk.diskURI: Unsupported value: "x": supported values: "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"`}},
		{"vsphereVolume: {}", []string{at + "vsphereVolume.volumePath: Required value"}},
		{"photonPersistentDisk: {}", []string{at + "photonPersistentDisk.pdID: Required value"}},
		{"portworxVolume: {}", []string{at + "portworxVolume.volumeID: Required value"}},
		{"csi: {nodePublishSecretRef: {}}", []string{at + "csi.driver: Required value", at + "csi.nodePublishSecretRef.name: Required value"}},
		{"csi: {driver: A_b}", []string{at + `csi.driver: Invalid value: "A_b": a lowercase RFC 1123 subdomain...`}},
		{"csi: {driver: d, nodePublishSecretRef: {name: A_b}}", []string{at + `csi.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain...`}},
		{"flexVolume: {driver: d, options: {Kubernetes.io/x: a, k8s.io: b}}", []string{
			at + `flexVolume.options[Kubernetes.io/x]: Invalid value: "Kubernetes.io/x": kubernetes.io and k8s.io namespaces are reserved`,
			at + `flexVolume.options[k8s.io]: Invalid value: "k8s.io": kubernetes.io and k8s.io namespaces are reserved`}},
		{"ephemeral: {}", []string{at + "ephemeral.volumeClaimTemplate: Required value"}},
		{"ephemeral: {volumeClaimTemplate: {metadata: {name: nm}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}", []string{
			at + "ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set"}},
		{"downwardAPI: {items: [{path: a, resourceFieldRef: {resource: limits.cpu}}]}", []string{
			at + "downwardAPI.resourceFieldRef.containerName: Required value"}},
		{"downwardAPI: {items: [{path: a, fieldRef: {fieldPath: spec.nodeName}}]}", []string{
			at + `downwardAPI.fieldRef.fieldPath: Unsupported value: "spec.nodeName": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"`}},
		{"projected: {sources: [{}]}", []string{at + "projected.sources[0]: Required value: must specify a volume type"}},
		{"projected: {sources: [{serviceAccountToken: {path: t}}]}", []string{
			at + "projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"}},
		{"projected: {sources: [{clusterTrustBundle: {path: p}}]}", []string{
			at + "projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified"}},
		{"projected: {sources: [{clusterTrustBundle: {name: nm, signerName: s, path: p}}]}", []string{
			at + `projected.sources[0].clusterTrustBundle: Invalid value: "": only one of name and signerName may be used`}},
		{"projected: {sources: [{podCertificate: {signerName: example.com/s, keyType: DSA, maxExpirationSeconds: 60}}]}", []string{
			at + `projected.sources[0].podCertificate.keyType: Unsupported value: "DSA": supported values: "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"`,
			at + "projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 60: if provided, maxExpirationSeconds must be >= 3600",
			at + "projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath"}},
		{"image: {reference: 'i:1', pullPolicy: Maybe}", []string{
			at + `image.pullPolicy: Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never"`}},
	}
	for _, test := range tests {
		t.Run(test.source, func(t *testing.T) {
			checkErrors(t, validatePodCreate(context.Background(), podFromYAML(t, "volumes: [{name: v, "+test.source+"}]")), test.want...)
		})
	}
}

func TestWindowsPods(t *testing.T) {
	const user = "spec.securityContext.windowsOptions.runAsUserName: Invalid value: "
	tests := []struct {
		spec string
		want []string
	}{
		{`securityContext: {windowsOptions: {runAsUserName: 'NT AUTHORITY\SYSTEM'}}`, nil},
		{`securityContext: {windowsOptions: {runAsUserName: 'example.com\me'}}`, nil},
		{`securityContext: {windowsOptions: {runAsUserName: ''}}`, []string{user + `"": runAsUserName cannot be an empty string`}},
		{`securityContext: {windowsOptions: {runAsUserName: 'a\b\c'}}`, []string{user + `"a\\b\\c": runAsUserName cannot contain more than one backslash`}},
		{`securityContext: {windowsOptions: {runAsUserName: 'a\'}}`, []string{user + `"a\\": runAsUserName's User cannot be empty`}},
		{`securityContext: {windowsOptions: {runAsUserName: '...'}}`, []string{user + `"...": runAsUserName's User cannot contain only periods or spaces`}},
		{`securityContext: {windowsOptions: {gmsaCredentialSpec: ''}}`, []string{
			`spec.securityContext.windowsOptions.gmsaCredentialSpec: Invalid value: "": gmsaCredentialSpec cannot be an empty string`}},
		{`securityContext: {windowsOptions: {hostProcess: true}}`, []string{
			"spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers"}},
		{`{hostNetwork: true, containers: [{name: a, image: i, securityContext: {windowsOptions: {hostProcess: true}}}, {name: b, image: i}]}`, []string{
			`spec: Invalid value: "": If pod contains any hostProcess containers then all containers must be HostProcess containers`}},
		{`{os: {name: linux}, securityContext: {windowsOptions: {}}}`, []string{
			"spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"}},
	}
	for _, test := range tests {
		t.Run(test.spec, func(t *testing.T) {
			checkErrors(t, validatePodCreate(context.Background(), podFromYAML(t, test.spec)), test.want...)
		})
	}
}

func TestSecurityContexts(t *testing.T) {
	c := func(s string) string { return "containers: [{name: c, image: i, securityContext: {" + s + "}}]" }
	const at = "spec.containers[0].securityContext"
	tests := []struct {
		spec string
		want []string
	}{
		{c("privileged: true, capabilities: {add: [NET_ADMIN]}"), nil},
		{c("privileged: true, allowPrivilegeEscalation: false"), []string{
			at + ": Invalid value: {\"privileged\":true,\"allowPrivilegeEscalation\":false}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"}},
		{c("allowPrivilegeEscalation: false, capabilities: {add: [CAP_SYS_ADMIN]}"), []string{
			at + ": Invalid value: {\"capabilities\":{\"add\":[\"CAP_SYS_ADMIN\"]},\"allowPrivilegeEscalation\":false}: cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"}},
		{c("seccompProfile: {type: RuntimeDefault, localhostProfile: x}"), []string{
			at + `.seccompProfile.localhostProfile: Invalid value: "x": can only be set when seccomp type is Localhost`}},
		{c("seccompProfile: {type: Localhost, localhostProfile: ../x}"), []string{
			at + `.seccompProfile.localhostProfile: Invalid value: "../x": must not contain '..'`}},
		{c("appArmorProfile: {type: Localhost, localhostProfile: ' x'}"), []string{
			at + `.appArmorProfile.localhostProfile: Invalid value: " x": must not be padded with whitespace`}},
		{c("appArmorProfile: {}"), []string{at + ".appArmorProfile.type: Required value: type is required when appArmorProfile is set"}},
		{c("procMount: Open"), []string{at + `.procMount: Unsupported value: "Open": supported values: "Default", "Unmasked"`}},
		{"securityContext: {fsGroup: -1, supplementalGroups: [-2], fsGroupChangePolicy: Never, supplementalGroupsPolicy: X, seLinuxChangePolicy: Z}", []string{
			"spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive",
			"spec.securityContext.supplementalGroups[0]: Invalid value: -2: must be between 0 and 2147483647, inclusive",
			`spec.securityContext.supplementalGroupsPolicy: Unsupported value: "X": supported values: "Merge", "Strict"`,
			`spec.securityContext.fsGroupChangePolicy: Unsupported value: "Never": supported values: "Always", "OnRootMismatch"`,
			`spec.securityContext.seLinuxChangePolicy: Unsupported value: "Z": supported values: "MountOption", "Recursive"`}},
		{"securityContext: {sysctls: [{name: kernel.shm_rmid_forced, value: '1'}, {name: kernel.shm_rmid_forced, value: '1'}, {}]}", []string{
			`spec.securityContext.sysctls[1].name: Duplicate value: "kernel.shm_rmid_forced"`, "spec.securityContext.sysctls[2].name: Required value"}},
		{"{hostnameOverride: a_b, hostNetwork: true, setHostnameAsFQDN: true}", []string{
			`spec.hostnameOverride: Invalid value: "a_b": a lowercase RFC 1123 subdomain...`,
			"spec.hostNetwork: Forbidden: must be false when `hostnameOverride` is set",
			"spec.setHostnameAsFQDN: Forbidden: must be nil or false when `hostnameOverride` is set"}},
	}
	for _, test := range tests {
		t.Run(test.spec, func(t *testing.T) {
			checkErrors(t, validatePodCreate(context.Background(), podFromYAML(t, test.spec)), test.want...)
		})
	}
}
