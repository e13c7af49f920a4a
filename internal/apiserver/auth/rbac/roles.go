package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// userRoles are the roles for people, and those that are aggregated into admin, edit and view.
func userRoles() []*rbacv1.ClusterRole {
	aggregated := func(to string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "system:aggregate-to-" + to, Labels: aggregateTo(to)},
			Rules:      rules,
		}
	}
	return []*rbacv1.ClusterRole{
		clusterRole("cluster-admin", rule("*", "*", "*"), paths("*", "*")),
		clusterRole("system:monitoring", paths("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*")),
		clusterRole("system:discovery", paths("get", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")),
		clusterRole("system:public-info-viewer", paths("get", "/healthz /livez /readyz /version /version/")),
		clusterRole("system:basic-user",
			rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
			rule("create", "authentication.k8s.io", "selfsubjectreviews")),
		aggregated("admin",
			rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
			rule(readWrite, "rbac.authorization.k8s.io", "rolebindings roles")),
		aggregated("edit", editRules()...),
		aggregated("view", viewRules()...),
	}
}

// editRules let a user work in a namespace. Endpoints and EndpointSlices can't be written: they could lead traffic to where
// the writer may not go.
func editRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(read, core, "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
		rule("impersonate", core, "serviceaccounts"),
		rule(write, core, "pods pods/attach pods/exec pods/portforward pods/proxy"),
		rule("create", core, "pods/eviction"),
		rule(write, core, "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy"),
		rule("create", core, "serviceaccounts/token"),
		rule(write, "apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"),
		rule(write, "autoscaling", "horizontalpodautoscalers"),
		rule(write, "batch", "cronjobs jobs"),
		rule(write, "extensions", "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale replicationcontrollers/scale"),
		rule(write, "policy", "poddisruptionbudgets"),
		rule(write, "networking.k8s.io", "ingresses networkpolicies"),
		rule(readWrite, "coordination.k8s.io", "leases"),
		rule(write, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
	}
}

// viewRules let a user see a namespace, without its secrets.
func viewRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule(read, core, "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status"),
		rule(read, core, "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status"),
		rule(read, core, "namespaces"),
		rule(read, "discovery.k8s.io", "endpointslices"),
		rule(read, "apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"),
		rule(read, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
		rule(read, "batch", "cronjobs cronjobs/status jobs jobs/status"),
		rule(read, "extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale"),
		rule(read, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
		rule(read, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
		rule(read, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
	}
}

// systemRoles are the roles of the cluster's own parts.
func systemRoles() []*rbacv1.ClusterRole {
	reviews := []rbacv1.PolicyRule{
		rule("create", "authentication.k8s.io", "tokenreviews"),
		rule("create", "authorization.k8s.io", "subjectaccessreviews"),
	}
	approver := func(name, signer string) *rbacv1.ClusterRole {
		return clusterRole("system:certificates.k8s.io:"+name, rule("approve", "certificates.k8s.io", "signers", signer))
	}
	requester := func(name string) *rbacv1.ClusterRole {
		return clusterRole("system:certificates.k8s.io:certificatesigningrequests:"+name,
			rule("create", "certificates.k8s.io", "certificatesigningrequests/"+name))
	}
	return []*rbacv1.ClusterRole{
		clusterRole("system:node", NodeRules()...),
		clusterRole("system:node-problem-detector", rule("get", core, "nodes"), rule("patch", core, "nodes/status"), events()),
		clusterRole("system:kubelet-api-admin",
			rule(read, core, "nodes"), rule("proxy", core, "nodes"),
			rule("*", core, "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats")),
		clusterRole("system:node-bootstrapper", rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests")),
		clusterRole("system:auth-delegator", reviews...),
		clusterRole("system:heapster", rule(read, core, "events namespaces nodes pods"), rule(read, "extensions", "deployments")),
		clusterRole("system:kube-aggregator", rule(read, core, "endpoints services")),
		clusterRole("system:kube-controller-manager", controllerManagerRules(reviews)...),
		clusterRole("system:kube-scheduler", schedulerRules(reviews)...),
		clusterRole("system:kube-dns", rule(watch, core, "endpoints services")),
		clusterRole("system:coredns",
			rule(watch, core, "endpoints namespaces pods services"), rule(watch, "discovery.k8s.io", "endpointslices"), rule("get", core, "nodes")),
		clusterRole("system:node-proxier",
			rule(watch, core, "endpoints services"), rule(read, core, "nodes"), events(),
			rule(watch, "discovery.k8s.io", "endpointslices"), rule(watch, "networking.k8s.io", "servicecidrs")),
		clusterRole("system:persistent-volume-provisioner",
			rule("create delete get list watch", core, "persistentvolumes"),
			rule("get list update watch", core, "persistentvolumeclaims"),
			rule(read, "storage.k8s.io", "storageclasses"), rule("watch", core, "events"), events()),
		clusterRole("system:volume-scheduler",
			rule("get list patch update watch", core, "persistentvolumes"),
			rule(read, "storage.k8s.io", "storageclasses"),
			rule("get list patch update watch", core, "persistentvolumeclaims")),
		clusterRole("system:service-account-issuer-discovery",
			paths("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/")),
		clusterRole("system:cluster-trust-bundle-discovery", rule(read, "certificates.k8s.io", "clustertrustbundles")),
		requester("nodeclient"),
		requester("selfnodeclient"),
		approver("legacy-unknown-approver", "kubernetes.io/legacy-unknown"),
		approver("kubelet-serving-approver", "kubernetes.io/kubelet-serving"),
		approver("kube-apiserver-client-approver", "kubernetes.io/kube-apiserver-client"),
		approver("kube-apiserver-client-kubelet-approver", "kubernetes.io/kube-apiserver-client-kubelet"),
	}
}

// NodeRules are what every node may do whatever runs on it. What depends on that (secrets, config maps, volumes, tokens,
// the node's own object, its pods) is decided by package node.
func NodeRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		rule("create", "authentication.k8s.io", "tokenreviews"),
		rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
		rule(read, core, "services"),
		rule("create", core, "nodes"),
		rule("patch update", core, "nodes nodes/status"),
		rule("create patch update", core, "events"),
		rule("create delete", core, "pods"),
		rule("patch update", core, "pods/status"),
		rule("create", core, "pods/eviction"),
		rule(read, core, "configmaps secrets"),
		rule("get", core, "persistentvolumeclaims persistentvolumes"),
		rule("get", core, "endpoints"),
		rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
		rule("create delete get patch update", "coordination.k8s.io", "leases"),
		rule("get", "storage.k8s.io", "volumeattachments"),
		rule("create", core, "serviceaccounts/token"),
		rule("get", core, "serviceaccounts"),
		rule("get patch update", core, "persistentvolumeclaims/status"),
		rule(read, "storage.k8s.io", "csidrivers"),
		rule("create delete get patch update", "storage.k8s.io", "csinodes"),
		rule(read, "node.k8s.io", "runtimeclasses"),
		rule("get", "resource.k8s.io", "resourceclaims"),
		rule("deletecollection", "resource.k8s.io", "resourceslices"),
		rule(read, "certificates.k8s.io", "clustertrustbundles"),
		rule("create get list watch", "certificates.k8s.io", "podcertificaterequests"),
	}
}

func controllerManagerRules(reviews []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	return append([]rbacv1.PolicyRule{
		events(),
		rule("create", "coordination.k8s.io", "leases"),
		rule("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
		rule("create", core, "secrets serviceaccounts"),
		rule("delete", core, "secrets"),
		rule("get", core, "configmaps namespaces secrets serviceaccounts"),
		rule("update", core, "secrets serviceaccounts"),
		rule(watch, "*", "*"), // informers, quota and garbage collection see every kind
		rule("create", core, "serviceaccounts/token"),
	}, reviews...)
}

func schedulerRules(reviews []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	return append([]rbacv1.PolicyRule{
		events(),
		rule("create", "coordination.k8s.io", "leases"),
		rule("get list update watch", "coordination.k8s.io", "leases", "kube-scheduler"),
		rule(readWrite, "coordination.k8s.io", "leasecandidates"),
		rule(read, core, "nodes"),
		rule("delete get list watch", core, "pods"),
		rule("create", core, "bindings pods/binding"),
		rule("patch update", core, "pods/status"),
		rule(read, core, "replicationcontrollers services"),
		rule(read, "apps extensions", "replicasets"),
		rule(read, "apps", "statefulsets"),
		rule(read, "policy", "poddisruptionbudgets"),
		rule(read, core, "persistentvolumeclaims persistentvolumes"),
		rule(read, core, "namespaces"),
		rule(read, "storage.k8s.io", "csidrivers csinodes csistoragecapacities volumeattachments"),
		rule(read, "resource.k8s.io", "deviceclasses devicetaintrules resourceslices"),
		rule("get list patch update watch", "resource.k8s.io", "resourceclaims"),
		rule("get list patch update watch", "resource.k8s.io", "resourceclaims/status"),
		rule("get list patch update watch", core, "pods/finalizers"), // of the claims that are made for a pod
	}, reviews...)
}
