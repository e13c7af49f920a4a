package node

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestAnnounce(t *testing.T) {
	conditions := func(memory, disk, pids, ready corev1.ConditionStatus) []corev1.NodeCondition {
		return []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: memory}, {Type: corev1.NodeDiskPressure, Status: disk},
			{Type: corev1.NodePIDPressure, Status: pids}, {Type: corev1.NodeReady, Status: ready}, {Type: "Other", Status: ready},
		}
	}
	const yes, no, unknown = corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown
	for name, test := range map[string]struct {
		before, after []corev1.NodeCondition
		want          []string
	}{
		"first":        {nil, conditions(no, no, no, yes), []string{"NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"}},
		"no change":    {conditions(no, yes, no, yes), conditions(no, yes, no, yes), nil},
		"pressure":     {conditions(no, no, no, yes), conditions(yes, yes, yes, yes), []string{"NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeHasInsufficientPID"}},
		"relief":       {conditions(no, yes, no, yes), conditions(no, no, no, yes), []string{"NodeHasNoDiskPressure"}},
		"ready":        {conditions(no, no, no, no), conditions(no, no, no, yes), []string{"NodeReady"}},
		"not ready":    {conditions(no, no, no, yes), conditions(no, no, no, no), []string{"NodeNotReady"}},
		"heard of now": {conditions(unknown, no, no, unknown), conditions(no, no, no, yes), []string{"NodeHasSufficientMemory", "NodeReady"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			n := New(Config{Name: "n1", Event: func(kind, reason, message string) {
				if kind != "Normal" || message != "Node n1 status is now: "+reason {
					t.Errorf("got the event %s %q", kind, message)
				}
				got = append(got, reason)
			}})
			n.announce(test.before, test.after)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
