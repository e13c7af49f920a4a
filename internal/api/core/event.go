package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/proa-k8s/proa/internal/api"
)

// eventTTL is how long an event is kept, in seconds.
const eventTTL = 3600

// Event describes events, which are served in two groups: "" and events.k8s.io.
func Event() *api.Resource {
	event := corev1.Event{}.SwaggerDoc()
	return api.Define[corev1.Event, corev1.EventList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "events", Singular: "event", Kind: "Event", ShortNames: []string{"ev"},
		Namespaced: true,
		Prefix:     "events",
		TTL:        eventTTL,
		Versions: []api.Version{
			newEvent(),
		},
		Strategy: api.Typed[*corev1.Event]{
			Validate:       validateEvent,
			ValidateUpdate: validateEventUpdate,
			// Recorders count repetitions by patches, and write again what has expired meanwhile.
			AllowCreateOnUpdate: true,
			ValidateName:        api.ValidatePathSegmentName,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.Column("Last Seen", "string", event["lastTimestamp"]),
			api.Column("Type", "string", event["type"]),
			api.Column("Reason", "string", event["reason"]),
			api.Column("Object", "string", event["involvedObject"]),
			api.WideColumn("Subobject", "string", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"]),
			api.WideColumn("Source", "string", event["source"]),
			api.Column("Message", "string", event["message"]),
			api.WideColumn("First Seen", "string", event["firstTimestamp"]),
			api.WideColumn("Count", "string", event["count"]),
			{Name: "Name", Type: "string", Format: "name", Priority: 1, Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		},
		Row: api.Row(eventRow),
		SelectableFields: []string{
			"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
			"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
			"reason", "reportingComponent", "source", "type",
		},
		Fields: api.Fields(eventFields),
	})
}

// newEvent is the event of events.k8s.io, where fields have other names.
func newEvent() api.Version {
	v := api.NewVersion[eventsv1.Event, eventsv1.EventList, corev1.Event](eventsv1.SchemeGroupVersion, eventToHub, eventFromHub)
	v.FieldNames = map[string]string{
		"regarding.kind":            "involvedObject.kind",
		"regarding.namespace":       "involvedObject.namespace",
		"regarding.name":            "involvedObject.name",
		"regarding.uid":             "involvedObject.uid",
		"regarding.apiVersion":      "involvedObject.apiVersion",
		"regarding.resourceVersion": "involvedObject.resourceVersion",
		"regarding.fieldPath":       "involvedObject.fieldPath",
		"reason":                    "reason",
		"reportingController":       "reportingComponent",
		"type":                      "type",
	}
	return v
}

func eventFields(event *corev1.Event) fields.Set {
	source := event.Source.Component
	if source == "" {
		source = event.ReportingController
	}
	return fields.Set{
		"involvedObject.kind":            event.InvolvedObject.Kind,
		"involvedObject.namespace":       event.InvolvedObject.Namespace,
		"involvedObject.name":            event.InvolvedObject.Name,
		"involvedObject.uid":             string(event.InvolvedObject.UID),
		"involvedObject.apiVersion":      event.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": event.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       event.InvolvedObject.FieldPath,
		"reason":                         event.Reason,
		"reportingComponent":             event.ReportingController,
		"source":                         source,
		"type":                           event.Type,
	}
}

func eventRow(event *corev1.Event) []any {
	first := api.Since(event.FirstTimestamp)
	if event.FirstTimestamp.IsZero() {
		first = api.SinceMicro(event.EventTime)
	}
	last := api.Since(event.LastTimestamp)
	if event.LastTimestamp.IsZero() {
		last = first
	}
	count := event.Count
	if event.Series != nil {
		last = api.SinceMicro(event.Series.LastObservedTime)
		count = event.Series.Count
	} else if count == 0 { // an event of the new kind that has happened once
		count = 1
	}
	object := strings.ToLower(event.InvolvedObject.Kind)
	if event.InvolvedObject.Name != "" {
		object += "/" + event.InvolvedObject.Name
	}
	return []any{
		last, event.Type, event.Reason, object, event.InvolvedObject.FieldPath, eventSourceCell(event),
		strings.TrimSpace(event.Message), first, int64(count), event.Name,
	}
}

func eventSourceCell(event *corev1.Event) string {
	component, host := event.Source.Component, event.Source.Host
	if component == "" {
		component = event.ReportingController
	}
	if host == "" {
		host = event.ReportingInstance
	}
	if host == "" {
		return component
	}
	return component + ", " + host
}

func eventToHub(in *eventsv1.Event, out *corev1.Event) error {
	*out = corev1.Event{
		ObjectMeta:          in.ObjectMeta,
		InvolvedObject:      in.Regarding,
		Related:             in.Related,
		Reason:              in.Reason,
		Message:             in.Note,
		Source:              in.DeprecatedSource,
		FirstTimestamp:      in.DeprecatedFirstTimestamp,
		LastTimestamp:       in.DeprecatedLastTimestamp,
		Count:               in.DeprecatedCount,
		Type:                in.Type,
		EventTime:           in.EventTime,
		Action:              in.Action,
		ReportingController: in.ReportingController,
		ReportingInstance:   in.ReportingInstance,
	}
	if in.Series != nil {
		out.Series = &corev1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
	return nil
}

func eventFromHub(in *corev1.Event, out *eventsv1.Event) error {
	*out = eventsv1.Event{
		ObjectMeta:               in.ObjectMeta,
		Regarding:                in.InvolvedObject,
		Related:                  in.Related,
		Reason:                   in.Reason,
		Note:                     in.Message,
		DeprecatedSource:         in.Source,
		DeprecatedFirstTimestamp: in.FirstTimestamp,
		DeprecatedLastTimestamp:  in.LastTimestamp,
		DeprecatedCount:          in.Count,
		Type:                     in.Type,
		EventTime:                in.EventTime,
		Action:                   in.Action,
		ReportingController:      in.ReportingController,
		ReportingInstance:        in.ReportingInstance,
	}
	if in.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: in.Series.Count, LastObservedTime: in.Series.LastObservedTime}
	}
	return nil
}
