package admission

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// newOwnerReferences lets only those change owners who may delete the object, and only those block an owner's deletion who
// may change the owner's finalizers. It is off by default.
func newOwnerReferences(c *Config) *Plugin {
	if c.Authorizer == nil || c.ResourceFor == nil {
		return nil
	}
	return &Plugin{
		Applies: func(t Target) bool {
			if t.GroupResource == pods && t.Subresource == "status" {
				return false // the owners can't be changed there
			}
			return t.Operation == admission.Create || t.Operation == admission.Update
		},
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			return c.checkOwners(ctx, a)
		},
	}
}

func ownersOf(obj any) []metav1.OwnerReference {
	o, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	return o.GetOwnerReferences()
}

func (c *Config) checkOwners(ctx context.Context, a admission.Attributes) error {
	owners := ownersOf(a.GetObject())
	var old []metav1.OwnerReference
	if a.GetOldObject() != nil {
		old = ownersOf(a.GetOldObject())
	}
	if sameOwners(owners, old) {
		return nil
	}
	// Whoever makes an object may give it owners.
	if a.GetOperation() == admission.Update {
		decision, reason, err := c.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: a.GetUserInfo(), Verb: "delete", Namespace: a.GetNamespace(), APIGroup: a.GetResource().Group, APIVersion: a.GetResource().Version,
			Resource: a.GetResource().Resource, Subresource: a.GetSubresource(), Name: a.GetName(), ResourceRequest: true,
		})
		if decision != authorizer.DecisionAllow {
			return admission.NewForbidden(a, fmt.Errorf("cannot set an ownerRef on a resource you can't delete: %v, %v", reason, err))
		}
	}
	for _, ref := range owners {
		if ref.BlockOwnerDeletion == nil || !*ref.BlockOwnerDeletion || blocked(old, ref) {
			continue
		}
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			return admission.NewForbidden(a, fmt.Errorf("cannot set blockOwnerDeletion in this case: %w", err))
		}
		gvr, ok := c.ResourceFor(gv.WithKind(ref.Kind))
		if !ok {
			return admission.NewForbidden(a, fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %v Kind %v", ref.APIVersion, ref.Kind))
		}
		decision, reason, err := c.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
			User: a.GetUserInfo(), Verb: "update", Namespace: a.GetNamespace(), APIGroup: gvr.Group, APIVersion: gvr.Version,
			Resource: gvr.Resource, Subresource: "finalizers", Name: ref.Name, ResourceRequest: true,
		})
		if decision != authorizer.DecisionAllow {
			return admission.NewForbidden(a, fmt.Errorf("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, %v", reason, err))
		}
	}
	return nil
}

func sameOwners(a, b []metav1.OwnerReference) bool {
	return slices.EqualFunc(a, b, func(x, y metav1.OwnerReference) bool {
		return x.UID == y.UID && x.Name == y.Name && x.Kind == y.Kind && x.APIVersion == y.APIVersion &&
			flag(x.Controller) == flag(y.Controller) && flag(x.BlockOwnerDeletion) == flag(y.BlockOwnerDeletion)
	})
}

func flag(b *bool) bool { return b != nil && *b }

// blocked says whether the reference blocked its owner's deletion before.
func blocked(old []metav1.OwnerReference, ref metav1.OwnerReference) bool {
	return slices.ContainsFunc(old, func(o metav1.OwnerReference) bool { return o.UID == ref.UID && flag(o.BlockOwnerDeletion) })
}

func allowed(ctx context.Context, authz authorizer.Authorizer, attrs authorizer.AttributesRecord) bool {
	decision, _, _ := authz.Authorize(ctx, attrs)
	return decision == authorizer.DecisionAllow
}
