package namespace

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/store"
)

// content is what remains in a namespace.
type content struct {
	numbers    map[string]int // by "<resource>.<group>"
	finalizers map[string]int
	failures   []string
}

func (c *content) isEmpty() bool { return len(c.numbers) == 0 && len(c.failures) == 0 }

// resourceName names a resource as upstream does in conditions: "pods.", "deployments.apps".
func resourceName(r client.Resource) string { return r.Resource + "." + r.Group }

// add notes what remains of a resource.
func (c *content) add(r client.Resource, objects []*store.Object) error {
	for _, o := range objects {
		meta, err := client.Metadata(o)
		if err != nil {
			return err
		}
		if c.numbers == nil {
			c.numbers, c.finalizers = map[string]int{}, map[string]int{}
		}
		c.numbers[resourceName(r)]++
		for _, f := range meta.Finalizers {
			c.finalizers[f]++
		}
	}
	return nil
}

// fail notes that the content of a resource could not be deleted.
func (c *content) fail(r client.Resource, err error) {
	c.failures = append(c.failures, fmt.Sprintf("%s: %v", resourceName(r), err))
}

// describe sets the conditions; it reports whether any changed.
func (c *content) describe(s *corev1.NamespaceStatus, now time.Time) (changed bool) {
	set := func(t corev1.NamespaceConditionType, bad bool, reason, message string) {
		n := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
		if bad {
			n.Status = corev1.ConditionTrue
		}
		i := slices.IndexFunc(s.Conditions, func(o corev1.NamespaceCondition) bool { return o.Type == t })
		if i < 0 {
			s.Conditions, changed = append(s.Conditions, n), true
			return
		}
		was := s.Conditions[i]
		if was.Status == n.Status {
			n.LastTransitionTime = was.LastTransitionTime
		}
		if was.Status != n.Status || was.Reason != n.Reason || was.Message != n.Message {
			s.Conditions[i], changed = n, true
		}
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, false, "ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "ParsedGroupVersions", "All legacy kube types successfully parsed")
	if len(c.failures) > 0 {
		set(corev1.NamespaceDeletionContentFailure, true, "ContentDeletionFailed",
			"Failed to delete all resource types, "+fmt.Sprint(len(c.failures))+" remaining: "+strings.Join(c.failures, ", "))
	} else {
		set(corev1.NamespaceDeletionContentFailure, false, "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	}
	if len(c.numbers) > 0 {
		set(corev1.NamespaceContentRemaining, true, "SomeResourcesRemain",
			"Some resources are remaining: "+list(c.numbers, "%s has %d resource instances"))
	} else {
		set(corev1.NamespaceContentRemaining, false, "ContentRemoved", "All content successfully removed")
	}
	if len(c.finalizers) > 0 {
		set(corev1.NamespaceFinalizersRemaining, true, "SomeFinalizersRemain",
			"Some content in the namespace has finalizers remaining: "+list(c.finalizers, "%s in %d resource instances"))
	} else {
		set(corev1.NamespaceFinalizersRemaining, false, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	}
	return changed
}

// list words numbers in order of their names.
func list(numbers map[string]int, format string) string {
	parts := make([]string, 0, len(numbers))
	for name, n := range numbers {
		parts = append(parts, fmt.Sprintf(format, name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
