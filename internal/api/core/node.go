//lint:file-ignore SA1019 What is left of configSource is dropped here.

package core

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
)

// The labels that give a node its roles.
const (
	nodeRolePrefix = "node-role.kubernetes.io/"
	nodeRoleLabel  = "kubernetes.io/role"
)

// Node describes nodes, which are stored as "minions" since the first days.
func Node() *api.Resource {
	kind := corev1.SchemeGroupVersion.WithKind("Node")
	return api.Define[corev1.Node, corev1.NodeList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "nodes", Singular: "node", Kind: "Node", ShortNames: []string{"no"},
		Prefix: "minions",
		Strategy: api.Typed[*corev1.Node]{
			Default:       defaultNode,
			PrepareCreate: func(_ context.Context, node *corev1.Node) { node.Spec.ConfigSource = nil },
			PrepareUpdate: func(_ context.Context, node, old *corev1.Node) {
				node.Status = old.Status
				if old.Spec.ConfigSource == nil {
					node.Spec.ConfigSource = nil
				}
			},
			Validate:       validateNode,
			ValidateUpdate: validateNodeUpdate,
			Warn:           warnNode,
			ResetFields:    api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			{
				Name: "proxy", Kind: corev1.SchemeGroupVersion.WithKind("NodeProxyOptions"),
				Verbs: []string{"create", "delete", "get", "patch", "update"},
			},
			api.Status(kind, api.Typed[*corev1.Node]{
				PrepareUpdate: func(_ context.Context, node, old *corev1.Node) {
					node.Spec = old.Spec
					if old.Status.Config == nil {
						node.Status.Config = nil
					}
				},
				ValidateUpdate: validateNodeUpdate,
				ResetFields:    api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns:          nodeColumns(),
		Row:              api.Row(nodeRow),
		SelectableFields: []string{"spec.unschedulable"},
		Fields: api.Fields(func(node *corev1.Node) fields.Set {
			if node.Spec.Unschedulable {
				return fields.Set{"spec.unschedulable": "true"}
			}
			return fields.Set{"spec.unschedulable": "false"}
		}),
	})
}

// defaultNode keeps podCIDR and podCIDRs, its dual-stack successor, in step and lets all capacity be allocatable.
func defaultNode(node *corev1.Node) {
	if node.Status.Allocatable == nil && node.Status.Capacity != nil {
		node.Status.Allocatable = node.Status.Capacity.DeepCopy()
	}
	spec := &node.Spec
	if spec.PodCIDR != "" && (len(spec.PodCIDRs) == 0 || spec.PodCIDRs[0] != spec.PodCIDR) {
		spec.PodCIDRs = []string{spec.PodCIDR}
	} else if len(spec.PodCIDRs) > 0 {
		spec.PodCIDR = spec.PodCIDRs[0]
	}
}

func warnNode(_ context.Context, node, old *corev1.Node) []string {
	var warnings []string
	if node.Spec.ConfigSource != nil {
		warnings = append(warnings, "spec.configSource: the feature is no longer supported")
	}
	if node.Spec.DoNotUseExternalID != "" && (old == nil || old.Spec.DoNotUseExternalID != node.Spec.DoNotUseExternalID) {
		warnings = append(warnings, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	return warnings
}

func nodeColumns() []metav1.TableColumnDefinition {
	info, status := corev1.NodeSystemInfo{}.SwaggerDoc(), corev1.NodeStatus{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.Column("Status", "string", "The status of the node"),
		api.Column("Roles", "string", "The roles of the node"),
		api.AgeColumn(),
		api.Column("Version", "string", info["kubeletVersion"]),
		api.WideColumn("Internal-IP", "string", status["addresses"]),
		api.WideColumn("External-IP", "string", status["addresses"]),
		api.WideColumn("OS-Image", "string", info["osImage"]),
		api.WideColumn("Kernel-Version", "string", info["kernelVersion"]),
		api.WideColumn("Container-Runtime", "string", info["containerRuntimeVersion"]),
	}
}

func nodeRow(node *corev1.Node) []any {
	info := &node.Status.NodeInfo
	return []any{
		node.Name, nodeStatusCell(node), nodeRolesCell(node), api.Since(node.CreationTimestamp), info.KubeletVersion,
		nodeAddressCell(node, corev1.NodeInternalIP), nodeAddressCell(node, corev1.NodeExternalIP),
		orUnknown(info.OSImage), orUnknown(info.KernelVersion), orUnknown(info.ContainerRuntimeVersion),
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "<unknown>"
	}
	return s
}

func nodeStatusCell(node *corev1.Node) string {
	status := "Unknown"
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		status = "NotReady"
		if condition.Status == corev1.ConditionTrue {
			status = "Ready"
		}
	}
	if node.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	return status
}

func nodeRolesCell(node *corev1.Node) string {
	roles := sets.New[string]()
	for label, value := range node.Labels {
		if role, ok := strings.CutPrefix(label, nodeRolePrefix); ok && role != "" {
			roles.Insert(role)
		} else if label == nodeRoleLabel && value != "" {
			roles.Insert(value)
		}
	}
	return api.SortedCell(roles.UnsortedList())
}

func nodeAddressCell(node *corev1.Node, typ corev1.NodeAddressType) string {
	i := slices.IndexFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == typ })
	if i < 0 {
		return "<none>"
	}
	return node.Status.Addresses[i].Address
}
