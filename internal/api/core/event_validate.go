package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/proa-k8s/proa/internal/api"
)

// The longest texts of an event with an eventTime, in characters.
const (
	maxEventField   = 128
	maxEventMessage = 1024
)

// strictEvents says whether the request is made in events.k8s.io, which is stricter than the core group.
func strictEvents(ctx context.Context) bool {
	info, ok := request.RequestInfoFrom(ctx)
	return ok && info.APIGroup == eventsv1.GroupName
}

func validateEvent(ctx context.Context, event *corev1.Event) field.ErrorList {
	errs := validateAnyEvent(ctx, event)
	if !strictEvents(ctx) {
		return errs
	}
	if event.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	errs = append(errs, validateEventSeries(event)...)
	if event.Type != corev1.EventTypeNormal && event.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", event.Type)))
	}
	unset := func(name string, isUnset bool) {
		if !isUnset {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset("firstTimestamp", event.FirstTimestamp.IsZero())
	unset("lastTimestamp", event.LastTimestamp.IsZero())
	unset("count", event.Count == 0)
	unset("source", event.Source == corev1.EventSource{})
	return errs
}

// validateAnyEvent checks what holds for both groups: an event of the old kind, without eventTime, must only be in its
// object's namespace; one of the new kind must say who reports what.
func validateAnyEvent(ctx context.Context, event *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	namespace := event.InvolvedObject.Namespace
	var fits bool
	switch {
	case namespace == "" && event.EventTime.IsZero():
		fits = event.Namespace == metav1.NamespaceNone || event.Namespace == metav1.NamespaceDefault
	case namespace == "":
		fits = event.Namespace == metav1.NamespaceDefault || event.Namespace == metav1.NamespaceSystem
	default:
		fits = event.Namespace == namespace || !event.EventTime.IsZero()
	}
	if !fits {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), namespace, "does not match event.namespace"))
	}
	if event.EventTime.IsZero() {
		return errs
	}
	controller := field.NewPath("reportingComponent")
	if strictEvents(ctx) {
		controller = field.NewPath("reportingController")
	}
	if event.ReportingController == "" {
		errs = append(errs, field.Required(controller, ""))
	}
	errs = append(errs, api.InvalidAll(controller, event.ReportingController, validation.IsQualifiedName(event.ReportingController))...)
	for _, f := range []struct{ name, value string }{
		{"reportingInstance", event.ReportingInstance}, {"action", event.Action}, {"reason", event.Reason},
	} {
		if f.value == "" {
			errs = append(errs, field.Required(field.NewPath(f.name), ""))
		}
		errs = append(errs, validateEventText(f.name, f.value, maxEventField)...)
	}
	return append(errs, validateEventText("message", event.Message, maxEventMessage)...)
}

func validateEventText(name, value string, limit int) field.ErrorList {
	if len(value) <= limit {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", limit))}
}

func validateEventSeries(event *corev1.Event) field.ErrorList {
	if event.Series == nil {
		return nil
	}
	var errs field.ErrorList
	path := field.NewPath("series")
	if event.Series.Count < 2 {
		errs = append(errs, field.Invalid(path.Child("count"), "", "should be at least 2"))
	}
	if event.Series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(path.Child("lastObservedTime"), ""))
	}
	return errs
}

// validateEventUpdate lets a reporter in the core group rewrite its events; in events.k8s.io only the series may change.
func validateEventUpdate(ctx context.Context, event, old *corev1.Event) field.ErrorList {
	errs := validateAnyEvent(ctx, event)
	if !strictEvents(ctx) {
		return errs
	}
	errs = append(errs, validateEventSeries(event)...)
	for _, f := range []struct {
		name     string
		now, was any
	}{
		{"involvedObject", event.InvolvedObject, old.InvolvedObject},
		{"reason", event.Reason, old.Reason},
		{"message", event.Message, old.Message},
		{"source", event.Source, old.Source},
		{"firstTimestamp", event.FirstTimestamp, old.FirstTimestamp},
		{"lastTimestamp", event.LastTimestamp, old.LastTimestamp},
		{"count", event.Count, old.Count},
		{"type", event.Type, old.Type},
		{"eventTime", event.EventTime, old.EventTime},
		{"action", event.Action, old.Action},
		{"related", event.Related, old.Related},
		{"reportingController", event.ReportingController, old.ReportingController},
		{"reportingInstance", event.ReportingInstance, old.ReportingInstance},
	} {
		errs = append(errs, apivalidation.ValidateImmutableField(f.now, f.was, field.NewPath(f.name))...)
	}
	return errs
}
