package deployment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// dep makes a deployment with a rolling update; surge and unavailable are numbers or percentages.
func dep(replicas int32, surge, unavailable string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{
					MaxSurge: ptr.To(intstr.Parse(surge)), MaxUnavailable: ptr.To(intstr.Parse(unavailable)),
				},
			},
			ProgressDeadlineSeconds: ptr.To(int32(60)),
		},
	}
}

// set makes the n-th set, of that size, with so many pods available.
func set(n int, size, available int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("web-%d", n), UID: types.UID(strconv.Itoa(n)),
			CreationTimestamp: metav1.NewTime(now.Add(time.Duration(n) * time.Minute)),
		},
		Spec:   appsv1.ReplicaSetSpec{Replicas: &size},
		Status: appsv1.ReplicaSetStatus{Replicas: size, ReadyReplicas: available, AvailableReplicas: available},
	}
}

// sized adds the annotations of the size that the deployment had.
func sized(s *appsv1.ReplicaSet, desired, most int32) *appsv1.ReplicaSet {
	annotate(s, bounds{desired: desired, surge: most - desired})
	return s
}

func TestBounds(t *testing.T) {
	for _, test := range []struct {
		replicas           int32
		surge, unavailable string
		want               bounds
	}{
		{10, "25%", "25%", bounds{10, 3, 2}}, // up, and down
		{1, "25%", "25%", bounds{1, 1, 0}},
		{10, "0", "0%", bounds{10, 0, 1}}, // something must be able to move
		{3, "0", "10", bounds{3, 0, 3}},
		{0, "1", "1", bounds{0, 1, 0}},
	} {
		if got := boundsOf(dep(test.replicas, test.surge, test.unavailable)); got != test.want {
			t.Errorf("%d, %s, %s: %+v, want %+v", test.replicas, test.surge, test.unavailable, got, test.want)
		}
	}
}

func TestNewSize(t *testing.T) {
	for _, test := range []struct {
		d                     *appsv1.Deployment
		current, others, want int32
	}{
		{dep(10, "3", "0"), 0, 10, 3},
		{dep(10, "3", "0"), 3, 8, 5},
		{dep(10, "0", "3"), 0, 10, 0},
		{dep(10, "3", "0"), 0, 0, 10},
		{dep(10, "3", "0"), 12, 0, 10},
		{dep(10, "3", "0"), 0, 20, 0}, // more than there may be: none is added, none taken
	} {
		if got := newSize(test.d, test.current, test.others); got != test.want {
			t.Errorf("%d beside %d: %d, want %d", test.current, test.others, got, test.want)
		}
	}
}

func planned(plan []scaling) string {
	out := ""
	for _, p := range plan {
		out += fmt.Sprintf("%s:%d→%d ", p.set.Name, size(p.set), p.to)
	}
	return out
}

func TestPlanOld(t *testing.T) {
	for name, test := range map[string]struct {
		d      *appsv1.Deployment
		newest *appsv1.ReplicaSet
		old    []*appsv1.ReplicaSet
		want   string
	}{
		"nothing is old":                       {dep(10, "3", "2"), set(9, 10, 10), nil, ""},
		"what may be unavailable goes at once": {dep(10, "3", "2"), set(9, 3, 0), []*appsv1.ReplicaSet{set(1, 10, 10)}, "web-1:10→8 "},
		"new pods make room":                   {dep(10, "3", "2"), set(9, 5, 5), []*appsv1.ReplicaSet{set(1, 8, 8)}, "web-1:8→3 "},
		"nothing while the new aren't there":   {dep(10, "3", "0"), set(9, 3, 0), []*appsv1.ReplicaSet{set(1, 10, 10)}, ""},
		"unhealthy ones go first":              {dep(10, "3", "2"), set(9, 3, 0), []*appsv1.ReplicaSet{set(1, 8, 8), set(2, 2, 0)}, "web-2:2→0 "},
		"the oldest go first":                  {dep(10, "0", "5"), set(9, 0, 0), []*appsv1.ReplicaSet{set(1, 3, 3), set(2, 7, 7)}, "web-1:3→0 web-2:7→5 "},
		"stuck new pods protect the old":       {dep(4, "1", "1"), set(9, 2, 0), []*appsv1.ReplicaSet{set(1, 3, 3)}, ""},
	} {
		if got := planned(planOld(test.d, test.newest, test.old)); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestPlanScale(t *testing.T) {
	for name, test := range map[string]struct {
		d      *appsv1.Deployment
		newest *appsv1.ReplicaSet
		old    []*appsv1.ReplicaSet
		want   string
	}{
		"the only set gets all":            {dep(5, "1", "1"), set(9, 3, 3), nil, "web-9:3→5 "},
		"the latest when none is active":   {dep(5, "1", "1"), nil, []*appsv1.ReplicaSet{set(1, 0, 0), set(2, 0, 0)}, "web-2:0→5 "},
		"the old end when the new are all": {dep(5, "1", "1"), sized(set(9, 5, 5), 5, 6), []*appsv1.ReplicaSet{set(1, 1, 1)}, "web-1:1→0 "},
		"in proportion when growing": {dep(20, "5", "1"), sized(set(9, 5, 5), 10, 13),
			[]*appsv1.ReplicaSet{sized(set(1, 8, 8), 10, 13)}, "web-1:8→15 web-9:5→10 "},
		"in proportion when shrinking": {dep(5, "0", "1"), sized(set(9, 5, 5), 10, 10),
			[]*appsv1.ReplicaSet{sized(set(1, 5, 5), 10, 10)}, "web-1:5→2 web-9:5→3 "},
		"to nothing": {dep(0, "1", "1"), sized(set(9, 5, 5), 10, 13), []*appsv1.ReplicaSet{sized(set(1, 8, 8), 10, 13)}, "web-1:8→0 web-9:5→0 "},
	} {
		if got := planned(planScale(test.d, test.newest, test.old)); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// Whatever the numbers are, shares add up to what there may be, and none is negative.
func TestProportionalAddsUp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		before, after := r.Int32N(50)+1, r.Int32N(50)+1
		surge := r.Int32N(10)
		var sets []*appsv1.ReplicaSet
		left := before + surge
		for n := range 4 {
			share := r.Int32N(left + 1)
			left -= share
			if share > 0 {
				sets = append(sets, sized(set(n, share, share), before, before+surge))
			}
		}
		if len(sets) < 2 {
			continue
		}
		d := dep(after, strconv.Itoa(int(surge)), "1")
		sum := int32(0)
		for _, p := range proportional(d, slices.Clone(sets), boundsOf(d)) {
			if p.to < 0 {
				t.Fatalf("a set becomes %d", p.to)
			}
			sum += p.to
		}
		if sum != after+surge {
			t.Fatalf("%d+%d → %d+%d over %d sets: %d replicas in all", before, surge, after, surge, len(sets), sum)
		}
	}
}

// A whole roll-out, step by step with pods that become available at once, keeps to its bounds and ends.
func TestRolloutKeepsBounds(t *testing.T) {
	for _, test := range []struct{ surge, unavailable string }{{"25%", "25%"}, {"1", "0"}, {"0", "1"}, {"100%", "0"}, {"0", "100%"}} {
		d := dep(10, test.surge, test.unavailable)
		b := boundsOf(d)
		old, newest := set(1, 10, 10), set(2, 0, 0)
		for steps := 0; size(newest) != 10 || size(old) != 0; steps++ {
			if steps > 50 {
				t.Fatalf("%v: the roll-out doesn't end", test)
			}
			newest = set(2, newSize(d, size(newest), size(old)), newest.Status.AvailableReplicas)
			if sum := size(newest) + size(old); sum > b.desired+b.surge {
				t.Fatalf("%v: %d replicas", test, sum)
			}
			for _, p := range planOld(d, newest, []*appsv1.ReplicaSet{old}) {
				old = set(1, p.to, min(p.to, old.Status.AvailableReplicas))
			}
			if available := old.Status.AvailableReplicas + newest.Status.AvailableReplicas; available < b.desired-b.unavailable {
				t.Fatalf("%v: %d available", test, available)
			}
			newest = set(2, size(newest), size(newest))
		}
	}
}

func TestSurplusHistory(t *testing.T) {
	withRevision := func(s *appsv1.ReplicaSet, r string) *appsv1.ReplicaSet {
		s.Annotations = map[string]string{revisionAnnotation: r}
		return s
	}
	d := dep(1, "1", "1")
	old := []*appsv1.ReplicaSet{
		withRevision(set(1, 0, 0), "10"), withRevision(set(2, 0, 0), "9"), withRevision(set(3, 1, 1), "2"), withRevision(set(4, 0, 0), "1"),
	}
	for limit, want := range map[int32]string{0: "web-4 web-2 web-1 ", 1: "web-4 web-2 ", 2: "web-4 ", 3: "web-4 ", 4: "", math.MaxInt32: ""} {
		d.Spec.RevisionHistoryLimit = &limit
		got := ""
		for _, s := range surplusHistory(d, old) {
			got += s.Name + " "
		}
		if got != want {
			t.Errorf("limit %d: %q, want %q", limit, got, want)
		}
	}
}

func TestSameTemplateAndHash(t *testing.T) {
	d := dep(1, "1", "1")
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	d.Spec.Template = corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "b"}}},
	}
	s, err := newSet(d, nil)
	if err != nil || !sameTemplate(d, s) {
		t.Errorf("the set has another template (%v)", err)
	}
	if d.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != "" || d.Spec.Selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] != "" {
		t.Error("the deployment was changed")
	}
	again, _ := newSet(d, nil)
	d.Status.CollisionCount = ptr.To(int32(1))
	other, _ := newSet(d, nil)
	if again.Name != s.Name || other.Name == s.Name {
		t.Errorf("names are %s, %s, and %s after a collision", s.Name, again.Name, other.Name)
	}
	d.Spec.Template.Spec.Containers[0].Image = "c"
	if sameTemplate(d, s) {
		t.Error("a changed template is the same")
	}
}
