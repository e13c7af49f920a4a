// Package scheduling describes the kinds of scheduling.k8s.io. What flows in are k8s.io/api/scheduling/v1 objects; what
// flows out are defaults, verdicts and cells.
package scheduling

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// The names and values of the classes that are the system's own, and the highest value of all others.
const (
	SystemNodeCritical    = "system-node-critical"
	SystemClusterCritical = "system-cluster-critical"

	HighestUserPriority           int32 = 1_000_000_000
	SystemClusterCriticalPriority int32 = 2 * HighestUserPriority
	SystemNodeCriticalPriority          = SystemClusterCriticalPriority + 1000

	systemPrefix = "system-"
)

// PriorityClass describes priorityclasses.
func PriorityClass() *api.Resource {
	doc := schedulingv1.PriorityClass{}.SwaggerDoc()
	return api.Define[schedulingv1.PriorityClass, schedulingv1.PriorityClassList](schedulingv1.SchemeGroupVersion, api.Resource{
		Plural: "priorityclasses", Singular: "priorityclass", Kind: "PriorityClass", ShortNames: []string{"pc"},
		Prefix: "priorityclasses",
		Strategy: api.Typed[*schedulingv1.PriorityClass]{
			Default: func(class *schedulingv1.PriorityClass) {
				if class.PreemptionPolicy == nil {
					class.PreemptionPolicy = ptr.To(corev1.PreemptLowerPriority)
				}
			},
			PrepareCreate: func(_ context.Context, class *schedulingv1.PriorityClass) { class.Generation = 1 },
			Validate:      func(_ context.Context, class *schedulingv1.PriorityClass) field.ErrorList { return validate(class) },
			ValidateUpdate: func(_ context.Context, class, old *schedulingv1.PriorityClass) field.ErrorList {
				var errs field.ErrorList
				if class.Value != old.Value {
					errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
				}
				return append(errs, apivalidation.ValidateImmutableField(class.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
			},
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Value", "integer", doc["value"]),
			api.Column("Global-Default", "boolean", doc["globalDefault"]),
			api.AgeColumn(),
			api.Column("PreemptionPolicy", "string", doc["preemptionPolicy"]),
		},
		Row: api.Row(func(class *schedulingv1.PriorityClass) []any {
			return []any{
				class.Name, int64(class.Value), class.GlobalDefault, api.Since(class.CreationTimestamp),
				string(ptr.Deref(class.PreemptionPolicy, "")),
			}
		}),
	})
}

func validate(class *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(class.Name, systemPrefix) {
		if err := checkSystemClass(class); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
				fmt.Sprintf("priority class names with '%s' prefix are reserved for system use only. error: %v", systemPrefix, err)))
		}
	} else if class.Value > HighestUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"),
			fmt.Sprintf("maximum allowed value of a user defined priority is %v", HighestUserPriority)))
	}
	if class.PreemptionPolicy != nil {
		errs = append(errs, api.ValidateEnum(field.NewPath("preemptionPolicy"), *class.PreemptionPolicy,
			corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	return errs
}

// checkSystemClass returns an error unless the class is exactly one of the system's own.
func checkSystemClass(class *schedulingv1.PriorityClass) error {
	var value int32
	switch class.Name {
	case SystemNodeCritical:
		value = SystemNodeCriticalPriority
	case SystemClusterCritical:
		value = SystemClusterCriticalPriority
	default:
		return fmt.Errorf("%v is not a known system priority class", class.Name)
	}
	if class.Value != value {
		return fmt.Errorf("value of %v PriorityClass must be %v", class.Name, value)
	}
	if class.GlobalDefault {
		return fmt.Errorf("globalDefault of %v PriorityClass must be false", class.Name)
	}
	return nil
}
