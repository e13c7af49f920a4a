package apiserver

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/kubernetes/scheme"
)

// gate is the admission chain, with its two halves looked up once.
type gate struct {
	mutating   admission.MutationInterface   // nil when there is none
	validating admission.ValidationInterface // nil when there is none
	// mutates tells whether the mutating half could change the object of a request.
	mutates func(admission.Attributes) bool
	objects admission.ObjectInterfaces
}

func newGate(chain admission.Interface) gate {
	g := gate{objects: admission.NewObjectInterfacesFromScheme(scheme.Scheme)}
	g.mutating, _ = chain.(admission.MutationInterface)
	g.validating, _ = chain.(admission.ValidationInterface)
	g.mutates = func(admission.Attributes) bool { return true }
	if selective, ok := chain.(interface {
		Mutates(admission.Attributes) bool
	}); ok {
		g.mutates = selective.Mutates
	}
	return g
}

// operation is what a request wants to do, in the terms of admission.
type operation struct {
	name    string // "" while it is to be generated
	op      admission.Operation
	options runtime.Object
	dryRun  bool
}

func (q *request) attributes(o operation, obj, old runtime.Object) admission.Attributes {
	return admission.NewAttributesRecord(obj, old, q.kind(), q.admissionNamespace(o.name), o.name, q.ep.gvr, q.subName(), o.op, o.options, o.dryRun, q.user)
}

// admissionNamespace is what admission takes for the namespace: that of a Namespace is itself.
func (q *request) admissionNamespace(name string) string {
	if q.ep.Group == "" && q.ep.Plural == "namespaces" {
		return name
	}
	return q.namespace()
}

// mutate lets admission change obj. It says whether there was anything that could have: then defaults apply once more.
func (g gate) mutate(ctx context.Context, q *request, o operation, obj, old runtime.Object) (bool, error) {
	if g.mutating == nil || !g.mutating.Handles(o.op) {
		return false, nil
	}
	attributes := q.attributes(o, obj, old)
	may := g.mutates(attributes)
	m, metaErr := meta.Accessor(obj)
	if !may || metaErr != nil {
		return may, g.mutating.Admit(ctx, attributes, g.objects)
	}
	before := m.GetManagedFields()
	if err := g.mutating.Admit(ctx, attributes, g.objects); err != nil {
		return true, err
	}
	after := m.GetManagedFields()
	if len(before) == len(after) && (len(after) == 0 || &before[0] == &after[0]) {
		return true, nil
	}
	if err := managedfields.ValidateManagedFields(after); err != nil {
		m.SetManagedFields(before)
		warn(ctx, fmt.Sprintf(".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated "+
			"mutating admission controller; please fix your requests: %v", err))
	}
	return true, nil
}

// validate asks admission for its consent.
func (g gate) validate(ctx context.Context, q *request, o operation, obj, old runtime.Object) error {
	if g.validating == nil || !g.validating.Handles(o.op) {
		return nil
	}
	return g.validating.Validate(ctx, q.attributes(o, obj, old), g.objects)
}

// both lets admission change and validate a request that is no change of an object.
func (g gate) both(ctx context.Context, q *request, o operation, obj, old runtime.Object) error {
	if _, err := g.mutate(ctx, q, o, obj, old); err != nil {
		return err
	}
	return g.validate(ctx, q, o, obj, old)
}
