package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"
)

// NameColumn is the first column of nearly every table.
func NameColumn() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{
		Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"],
	}
}

// AgeColumn is the column of the time since creation.
func AgeColumn() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{
		Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
	}
}

// Column is a column that is always shown.
func Column(name, typ, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: typ, Description: description}
}

// WideColumn is a column that is shown with -o wide.
func WideColumn(name, typ, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: typ, Priority: 1, Description: description}
}

// Since is the cell for how long ago t was: "5m", or "<unknown>" for the zero time.
func Since(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}

// SinceMicro is Since for a time with microseconds.
func SinceMicro(t metav1.MicroTime) string {
	return Since(metav1.Time(t))
}

// SelectorCell is the cell of a label selector, "<none>" when it selects everything or nothing.
func SelectorCell(selector *metav1.LabelSelector) string {
	s := metav1.FormatLabelSelector(selector)
	if s == "" {
		return "<none>"
	}
	return s
}

// LabelsCell is the cell of a set of labels: "a=b,c=d" or "<none>".
func LabelsCell(set map[string]string) string {
	if len(set) == 0 {
		return "<none>"
	}
	return labels.FormatLabels(set)
}

// ListCell joins at most max values by commas and says how many more there are: "a,b,c + 2 more...".
func ListCell(values []string, max int) string {
	if len(values) == 0 {
		return "<none>"
	}
	if len(values) <= max {
		return strings.Join(values, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(values[:max], ","), len(values)-max)
}

// SortedCell joins values in order by commas, "<none>" without any.
func SortedCell(values []string) string {
	if len(values) == 0 {
		return "<none>"
	}
	return strings.Join(slices.Sorted(slices.Values(values)), ",")
}
