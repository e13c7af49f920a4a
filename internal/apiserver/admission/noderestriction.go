package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"github.com/proa-k8s/proa/internal/apiserver/auth/node"
	"github.com/proa-k8s/proa/internal/apiserver/auth/podrefs"
	"github.com/proa-k8s/proa/internal/store"
)

var (
	serviceAccounts = corev1.Resource("serviceaccounts")
	leases          = coordinationv1.Resource("leases")
	csiNodes        = storagev1.Resource("csinodes")
	resourceSlices  = resourcev1.Resource("resourceslices")
)

// newNodeRestriction keeps nodes to themselves: a node changes its own Node, Lease and CSINode, the pods bound to it, and gets
// tokens for those pods only. Authorization decides on names that are in the request's path; this decides on what is in objects.
func newNodeRestriction(c *Config) *Plugin {
	if c.Pods == nil || c.Nodes == nil {
		return nil
	}
	r := &nodeRestriction{c}
	return &Plugin{
		Applies: func(t Target) bool {
			if t.Operation == admission.Connect {
				return false
			}
			switch t.GroupResource {
			case pods:
				return t.Subresource == "" || t.Subresource == "status" || t.Subresource == "eviction"
			case nodes, leases, csiNodes, resourceSlices:
				return true
			case claims:
				return t.Subresource == "status"
			case serviceAccounts:
				return t.Subresource == "token"
			}
			return false
		},
		Validate: r.check,
	}
}

type nodeRestriction struct{ *Config }

func (r *nodeRestriction) check(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	name, isNode := node.Identity(a.GetUserInfo())
	if !isNode {
		return nil
	}
	if name == "" {
		return admission.NewForbidden(a, fmt.Errorf("could not determine node from user %q", a.GetUserInfo().GetName()))
	}
	var err error
	switch gr := a.GetResource().GroupResource(); {
	case gr == pods && a.GetSubresource() == "":
		err = r.pod(ctx, name, a)
	case gr == pods && a.GetSubresource() == "status":
		err = podStatus(name, a)
	case gr == pods && a.GetSubresource() == "eviction":
		err = r.eviction(ctx, name, a)
	case gr == nodes:
		err = nodeObject(name, a)
	case gr == claims:
		err = claimStatus(name, a)
	case gr == serviceAccounts:
		err = r.token(ctx, name, a)
	case gr == leases:
		err = ownLease(name, a)
	case gr == csiNodes:
		err = ownCSINode(name, a)
	case gr == resourceSlices:
		err = ownSlice(name, a)
	}
	if err != nil {
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			return err
		}
		return admission.NewForbidden(a, err)
	}
	return nil
}

func (r *nodeRestriction) pod(ctx context.Context, name string, a admission.Attributes) error {
	switch a.GetOperation() {
	case admission.Create:
		pod, ok := a.GetObject().(*corev1.Pod)
		if !ok {
			return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", a.GetObject()))
		}
		return r.mirror(ctx, name, pod)
	case admission.Delete:
		pod, err := r.Pods(ctx, a.GetNamespace(), a.GetName())
		if errors.Is(err, store.ErrNotFound) {
			return apierrors.NewNotFound(pods, a.GetName())
		}
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		if pod.Spec.NodeName != name {
			return fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", name)
		}
		return nil
	}
	return fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", a.GetOperation(), name)
}

// mirror checks the only kind of pod that a node makes: the image of a static pod, which has no power over other objects.
func (r *nodeRestriction) mirror(ctx context.Context, name string, pod *corev1.Pod) error {
	if !isMirror(pod) {
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, name)
	}
	if pod.Spec.NodeName != name {
		return fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", name)
	}
	if err := r.mirrorOwner(ctx, name, pod); err != nil {
		return err
	}
	what := map[podrefs.Kind]string{
		podrefs.ServiceAccount: "a service account", podrefs.Secret: "secrets", podrefs.ConfigMap: "configmaps",
		podrefs.PersistentVolumeClaim: "persistentvolumeclaims", podrefs.ResourceClaim: "resourceclaims",
	}
	var err error
	podrefs.Visit(pod, false, func(kind podrefs.Kind, _ string, _ *field.Path) bool {
		err = fmt.Errorf("node %q can not create pods that reference %s", name, what[kind])
		return false
	})
	if err == nil && len(pod.Spec.ResourceClaims) > 0 {
		err = fmt.Errorf("node %q can not create pods that reference resourceclaims", name)
	}
	if err == nil && len(pod.Status.ResourceClaimStatuses) > 0 {
		err = fmt.Errorf("node %q can not create pods that set resourceclaim statuses", name)
	}
	return err
}

func (r *nodeRestriction) mirrorOwner(ctx context.Context, name string, pod *corev1.Pod) error {
	switch len(pod.OwnerReferences) {
	case 0:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", name)
	case 1:
	default:
		return fmt.Errorf("node %q can only create pods with a single owner reference set to itself", name)
	}
	owner := pod.OwnerReferences[0]
	if owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != name {
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", name)
	}
	if !flag(owner.Controller) {
		return fmt.Errorf("node %q can only create pods with a controller owner reference set to itself", name)
	}
	if flag(owner.BlockOwnerDeletion) {
		return fmt.Errorf("node %q must not set blockOwnerDeletion on an owner reference", name)
	}
	self, err := r.Nodes(ctx, "", name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return apierrors.NewNotFound(nodes, name)
	case err != nil:
		return apierrors.NewInternalError(err)
	case owner.UID != self.UID:
		return fmt.Errorf("node %s UID mismatch: expected %s got %s", name, owner.UID, self.UID)
	}
	return nil
}

func podStatus(name string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return fmt.Errorf("unexpected operation %q, node %q can only update pod status", a.GetOperation(), name)
	}
	pod, ok1 := a.GetObject().(*corev1.Pod)
	old, ok2 := a.GetOldObject().(*corev1.Pod)
	if !ok1 || !ok2 {
		return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", a.GetObject()))
	}
	if old.Spec.NodeName != name {
		return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", name)
	}
	if !equality.Semantic.DeepEqual(pod.Labels, old.Labels) {
		return fmt.Errorf("node %q cannot update labels through pod status", name)
	}
	if !equality.Semantic.DeepEqual(pod.Status.ResourceClaimStatuses, old.Status.ResourceClaimStatuses) {
		return fmt.Errorf("node %q cannot update resource claim statuses", name)
	}
	return nil
}

func (r *nodeRestriction) eviction(ctx context.Context, name string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create {
		return fmt.Errorf("unexpected operation %s for eviction", a.GetOperation())
	}
	podName := a.GetName()
	if podName == "" {
		if o, ok := a.GetObject().(metav1.Object); ok {
			podName = o.GetName()
		}
	}
	if podName == "" {
		return errors.New("could not determine pod from request data")
	}
	pod, err := r.Pods(ctx, a.GetNamespace(), podName)
	if errors.Is(err, store.ErrNotFound) {
		return apierrors.NewNotFound(pods, podName)
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if pod.Spec.NodeName != name {
		return fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", name)
	}
	return nil
}

func nodeObject(name string, a admission.Attributes) error {
	requested := a.GetName()
	switch a.GetOperation() {
	case admission.Create:
		n, ok := a.GetObject().(*corev1.Node)
		if !ok {
			return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", a.GetObject()))
		}
		// The name may be in the object only.
		requested = n.Name
		if forbidden := forbiddenLabels(n.Labels, nil); len(forbidden) > 0 {
			return fmt.Errorf("is not allowed to set the following labels: %s", strings.Join(forbidden, ", "))
		}
	case admission.Update:
		n, ok1 := a.GetObject().(*corev1.Node)
		old, ok2 := a.GetOldObject().(*corev1.Node)
		if !ok1 || !ok2 {
			return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", a.GetObject()))
		}
		if requested == name {
			if err := nodeUpdate(name, n, old); err != nil {
				return err
			}
		}
	}
	if requested != name {
		return fmt.Errorf("node %q is not allowed to modify node %q", name, requested)
	}
	return nil
}

func nodeUpdate(name string, n, old *corev1.Node) error {
	if !equality.Semantic.DeepEqual(n.Spec.Taints, old.Spec.Taints) {
		return fmt.Errorf("node %q is not allowed to modify taints", name)
	}
	if !equality.Semantic.DeepEqual(n.OwnerReferences, old.OwnerReferences) {
		return fmt.Errorf("node %q is not allowed to modify ownerReferences", name)
	}
	if forbidden := forbiddenLabels(n.Labels, old.Labels); len(forbidden) > 0 {
		return fmt.Errorf("is not allowed to modify labels: %s", strings.Join(forbidden, ", "))
	}
	return nil
}

// kubeletLabels are those of Kubernetes' own names that nodes may set (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction).
var kubeletLabels = []string{
	corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
	corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable, corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
}

// forbiddenLabels gives the labels that differ and that a node may not choose, in order.
func forbiddenLabels(labels, old map[string]string) []string {
	var keys []string
	consider := func(k string) {
		if !slices.Contains(keys, k) && !nodeMayLabel(k) {
			keys = append(keys, k)
		}
	}
	for k, v := range labels {
		if o, ok := old[k]; !ok || o != v {
			consider(k)
		}
	}
	for k := range old {
		if _, ok := labels[k]; !ok {
			consider(k)
		}
	}
	slices.Sort(keys)
	return keys
}

func nodeMayLabel(key string) bool {
	namespace, _, qualified := strings.Cut(key, "/")
	if !qualified {
		return true
	}
	in := func(domain string) bool { return namespace == domain || strings.HasSuffix(namespace, "."+domain) }
	switch {
	case in("node-restriction.kubernetes.io"):
		return false
	case !in("kubernetes.io") && !in("k8s.io"):
		return true
	}
	return slices.Contains(kubeletLabels, key) || in("kubelet.kubernetes.io") || in("node.kubernetes.io")
}

// claimStatus lets a node tell nothing but how the expansion of a volume goes.
func claimStatus(name string, a admission.Attributes) error {
	if a.GetOperation() != admission.Update {
		return fmt.Errorf("unexpected operation %q", a.GetOperation())
	}
	claim, ok1 := a.GetObject().(*corev1.PersistentVolumeClaim)
	old, ok2 := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	if !ok1 || !ok2 {
		return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", a.GetObject()))
	}
	before, after := old.DeepCopy(), claim.DeepCopy()
	for _, c := range []*corev1.PersistentVolumeClaim{before, after} {
		c.ManagedFields, c.ResourceVersion = nil, ""
		c.Status.Capacity, c.Status.Conditions, c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil, nil, nil
		c.Status.CurrentVolumeAttributesClassName, c.Status.ModifyVolumeStatus = nil, nil
	}
	if !equality.Semantic.DeepEqual(before, after) {
		return fmt.Errorf("node %q is not allowed to update fields other than status.quantity and status.conditions", name)
	}
	return nil
}

// token lets a node get tokens for the pods bound to it only, and for audiences that the pod asks for.
func (r *nodeRestriction) token(ctx context.Context, name string, a admission.Attributes) error {
	request, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", a.GetObject()))
	}
	ref := request.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return errors.New("node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return errors.New("node requested token with a pod binding without a uid")
	}
	pod, err := r.Pods(ctx, a.GetNamespace(), ref.Name)
	if errors.Is(err, store.ErrNotFound) {
		return apierrors.NewNotFound(pods, ref.Name)
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if ref.UID != pod.UID {
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	if pod.Spec.NodeName != name {
		return errors.New("node requested token bound to a pod scheduled on a different node")
	}
	return r.audience(ctx, a, pod, request.Spec.Audiences)
}

func ownLease(name string, a admission.Attributes) error {
	lease := a.GetName()
	if a.GetOperation() == admission.Create {
		if o, ok := a.GetObject().(metav1.Object); ok {
			lease = o.GetName()
		}
	}
	if a.GetNamespace() != corev1.NamespaceNodeLease {
		return fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	if lease != name {
		return errors.New("can only access node lease with the same name as the requesting node")
	}
	return nil
}

func ownCSINode(name string, a admission.Attributes) error {
	requested := a.GetName()
	if a.GetOperation() == admission.Create {
		if o, ok := a.GetObject().(metav1.Object); ok {
			requested = o.GetName()
		}
	}
	if requested != name {
		return errors.New("can only access CSINode with the same name as the requesting node")
	}
	return nil
}

func ownSlice(name string, a admission.Attributes) error {
	obj := a.GetObject()
	if a.GetOperation() != admission.Create {
		obj = a.GetOldObject() // the node of a slice can't change
	}
	slice, ok := obj.(*resourcev1.ResourceSlice)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", obj))
	}
	switch {
	case slice.Spec.NodeName != nil && *slice.Spec.NodeName == name:
		return nil
	case a.GetOperation() == admission.Create:
		return errors.New("can only create ResourceSlice with the same NodeName as the requesting node")
	case a.GetOperation() == admission.Update:
		return errors.New("can only update ResourceSlice with the same NodeName as the requesting node")
	}
	return errors.New("can only delete ResourceSlice with the same NodeName as the requesting node")
}
