package nodelifecycle

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestPace(t *testing.T) {
	for name, test := range map[string]struct {
		ready, unready int
		anyReady       bool
		want           time.Duration
		ok             bool
	}{
		"one of three":                    {2, 1, true, 10 * time.Second, true},
		"all nodes of all zones":          {0, 3, false, 0, false},
		"all nodes of one zone":           {0, 3, true, 10 * time.Second, true},
		"most of a small zone":            {2, 8, true, 100 * time.Second, false},
		"most of a large zone":            {20, 80, true, 100 * time.Second, true},
		"two of three: too few for panic": {1, 2, true, 10 * time.Second, true},
	} {
		if got, ok := pace(test.ready, test.unready, test.anyReady); got != test.want || ok != test.ok {
			t.Errorf("%s: %v %v, want %v %v", name, got, ok, test.want, test.ok)
		}
	}
}

// in makes a node of a zone.
func in(zone string, ready corev1.ConditionStatus) *corev1.Node {
	n := node("Ready", string(ready))
	n.Labels = map[string]string{corev1.LabelTopologyZone: zone}
	return n
}

// fill counts nodes a0, a1 ... of the zone a, of which the last are not ready, and b0 of the zone b, which is.
func fill(ready, unready int) *zones {
	z := newZones()
	z.set("b0", in("b", corev1.ConditionTrue))
	for i := range ready {
		z.set(fmt.Sprint("a", unready+i), in("a", corev1.ConditionTrue))
	}
	for i := range unready {
		z.set(fmt.Sprint("a", i), in("a", corev1.ConditionUnknown))
	}
	return z
}

// ask has a node ask for its turn at a second.
func ask(t *testing.T, z *zones, second int, name string, may bool, next string, wait time.Duration) {
	t.Helper()
	gotMay, gotNext, gotWait := z.evict(name, now.Add(time.Duration(second)*time.Second))
	if gotMay != may || gotNext != next || next != "" && gotWait != wait {
		t.Errorf("%s at %d s: %v, next %q in %v; want %v, %q in %v", name, second, gotMay, gotNext, gotWait, may, next, wait)
	}
}

func TestTurns(t *testing.T) {
	z := fill(10, 4)
	ask(t, z, 0, "a0", true, "", 0)
	ask(t, z, 1, "a1", false, "a1", 9*time.Second)
	ask(t, z, 2, "a2", false, "a1", 8*time.Second)
	ask(t, z, 3, "a3", false, "a1", 7*time.Second)
	ask(t, z, 3, "a0", true, "", 0) // its taint could not be written
	ask(t, z, 10, "a2", false, "a1", 0)
	ask(t, z, 10, "a1", true, "a2", 10*time.Second)
	// The next one recovers before its turn.
	z.set("a2", in("a", corev1.ConditionTrue))
	if next, wait := z.leave("a2", now.Add(12*time.Second)); next != "a3" || wait != 8*time.Second {
		t.Errorf("after a2 the next is %q in %v", next, wait)
	}
	ask(t, z, 20, "a3", true, "", 0)
	// Who recovered is not given up again without a turn.
	z.set("a3", in("a", corev1.ConditionTrue))
	z.leave("a3", now.Add(21*time.Second))
	z.set("a3", in("a", corev1.ConditionUnknown))
	ask(t, z, 22, "a3", false, "a3", 8*time.Second)
	// Who moves to another zone waits there.
	if affected := z.set("a3", in("b", corev1.ConditionUnknown)); len(affected) != 0 {
		t.Errorf("a3 has left, and %v is affected", affected)
	}
	ask(t, z, 23, "a3", true, "", 0)
}

func TestNobodyIsGivenUpInADisruption(t *testing.T) {
	z := fill(6, 4)
	ask(t, z, 0, "a0", true, "", 0)
	ask(t, z, 1, "a1", false, "a1", 9*time.Second)
	for i := 4; i < 10; i++ { // the whole zone falls silent
		name := fmt.Sprint("a", i)
		affected := z.set(name, in("a", corev1.ConditionUnknown))
		// With six of ten the zone counts as disrupted, with the last it no longer does: the fault is its own.
		if want := i == 5 || i == 9; (len(affected) > 0) != want {
			t.Errorf("%s has fallen silent, affected are %v", name, affected)
		}
		if i == 6 {
			ask(t, z, 20, "a1", false, "", 0)
		}
	}
	ask(t, z, 20, "a1", true, "", 0)
	// No node of any zone is ready.
	affected := z.set("b0", in("b", corev1.ConditionFalse))
	if len(affected) != 11 || z.anyReady() {
		t.Errorf("of a cluster of 11 nodes that is down %d are affected", len(affected))
	}
	ask(t, z, 60, "a2", false, "", 0)
	if affected = z.set("b0", nil); len(affected) != 0 {
		t.Errorf("the cluster is down as before, and %v are affected", affected)
	}
	affected = z.set("a9", in("a", corev1.ConditionTrue))
	slices.Sort(affected)
	if len(affected) != 9 || affected[0] != "a0" {
		t.Errorf("the first node has come back, affected are %v", affected)
	}
	if a := z.zones[":a"]; len(z.nodes) != 10 || len(z.zones) != 1 || a.ready != 1 || a.unready != 9 {
		t.Errorf("%d nodes, %d zones, in one of them %d and %d", len(z.nodes), len(z.zones), a.ready, a.unready)
	}
}
