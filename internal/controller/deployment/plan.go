package deployment

import (
	"cmp"
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	intstrutil "k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// scaling is a decision: a set shall have so many replicas.
type scaling struct {
	set *appsv1.ReplicaSet
	to  int32
}

// bounds are the numbers that a rolling update keeps to.
type bounds struct {
	desired     int32
	surge       int32 // how many pods there may be above desired
	unavailable int32 // how many of desired may be unavailable
}

// boundsOf resolves the strategy's percentages: the surge is rounded up, the unavailable down, and if both come to
// nothing, one pod may be unavailable, for otherwise nothing could move.
func boundsOf(d *appsv1.Deployment) bounds {
	b := bounds{desired: ptr.Deref(d.Spec.Replicas, 1)}
	u := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || u == nil {
		return b
	}
	scaled := func(v *intstrutil.IntOrString, up bool) int32 {
		n, err := intstrutil.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(v, intstrutil.FromInt32(0))), int(b.desired), up)
		if err != nil { // Validation doesn't let it in.
			return 0
		}
		return int32(n)
	}
	b.surge, b.unavailable = scaled(u.MaxSurge, true), scaled(u.MaxUnavailable, false)
	if b.surge == 0 && b.unavailable == 0 {
		b.unavailable = 1
	}
	b.unavailable = min(b.unavailable, b.desired)
	return b
}

// size is how many replicas a set is declared to have.
func size(set *appsv1.ReplicaSet) int32 {
	if set == nil {
		return 0
	}
	return ptr.Deref(set.Spec.Replicas, 1)
}

func total(sets []*appsv1.ReplicaSet) (n int32) {
	for _, s := range sets {
		n += size(s)
	}
	return n
}

func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, s := range sets {
		if size(s) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// newSize is the next size of the newest set, which has the size current while others have others.
func newSize(d *appsv1.Deployment, current, others int32) int32 {
	b := boundsOf(d)
	switch {
	case current >= b.desired, d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return b.desired
	default:
		room := max(b.desired+b.surge-current-others, 0)
		return current + min(room, b.desired-current)
	}
}

// planOld says how the old sets shrink in a rolling update: first by their unhealthy pods, which nobody misses, then by
// as many as the available pods of all sets allow. old is ordered by age, oldest first.
func planOld(d *appsv1.Deployment, newest *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) []scaling {
	b := boundsOf(d)
	atLeast := b.desired - b.unavailable
	newUnavailable := size(newest) - newest.Status.AvailableReplicas
	budget := total(old) + size(newest) - atLeast - newUnavailable
	if total(old) == 0 || budget <= 0 {
		return nil
	}
	left := make([]int32, len(old))
	for i, s := range old {
		left[i] = size(s)
		if unhealthy := left[i] - s.Status.AvailableReplicas; unhealthy > 0 {
			n := min(budget, unhealthy)
			left[i] -= n
			budget -= n
		}
	}
	available := newest.Status.AvailableReplicas
	for _, s := range old {
		available += s.Status.AvailableReplicas
	}
	spare := available - atLeast
	for i := range old {
		if spare <= 0 {
			break
		}
		n := min(spare, left[i])
		left[i] -= n
		spare -= n
	}
	var plan []scaling
	for i, s := range old {
		if left[i] != size(s) {
			plan = append(plan, scaling{s, left[i]})
		}
	}
	return plan
}

// isScaling tells whether the number of replicas was changed since the sets were last sized.
func isScaling(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) bool {
	for _, s := range active(sets) {
		if n, ok := number(s, desiredAnnotation); ok && n != ptr.Deref(d.Spec.Replicas, 1) {
			return true
		}
	}
	return false
}

// planScale says how the sets' sizes change when the deployment's does, or has while the roll-out was paused: a single
// active set gets all; a roll-out in progress keeps its proportions, so that a failure of the new pods stays as small as
// it was.
func planScale(d *appsv1.Deployment, newest *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) []scaling {
	b := boundsOf(d)
	if only := activeOrLatest(newest, old); only != nil {
		return []scaling{{only, b.desired}}
	}
	if isSaturated(b.desired, newest) {
		var plan []scaling
		for _, s := range active(old) {
			plan = append(plan, scaling{s, 0})
		}
		return plan
	}
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return nil
	}
	all := active(old)
	if size(newest) > 0 {
		all = append(all, newest)
	}
	return proportional(d, all, b)
}

// proportional shares out the difference between the pods that there may be and those that there are.
func proportional(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, b bounds) []scaling {
	allowed := int32(0)
	if b.desired > 0 {
		allowed = b.desired + b.surge
	}
	toAdd := allowed - total(sets)
	// The largest first; of equal ones the newer when growing, the older when shrinking.
	slices.SortFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		age := olderFirst(a, b)
		if toAdd > 0 {
			age = -age
		}
		return cmp.Or(cmp.Compare(size(b), size(a)), age)
	})
	plan := make([]scaling, len(sets))
	var added int32
	for i, s := range sets {
		share := int32(0)
		if toAdd != 0 {
			share = shareOf(d, s, b, toAdd-added)
		}
		plan[i] = scaling{s, size(s) + share}
		added += share
	}
	if len(plan) > 0 && toAdd != 0 { // What rounding left over.
		plan[0].to = max(plan[0].to+toAdd-added, 0)
	}
	return plan
}

// shareOf is by how much a set changes, of what is left to be shared out.
func shareOf(d *appsv1.Deployment, s *appsv1.ReplicaSet, b bounds, left int32) int32 {
	if size(s) == 0 || left == 0 {
		return 0
	}
	share := -size(s)
	if b.desired != 0 {
		before, ok := number(s, maxAnnotation)
		if !ok || before == 0 {
			before = d.Status.Replicas
		}
		if before == 0 {
			return 0
		}
		share = int32(math.Round(float64(size(s))*float64(b.desired+b.surge)/float64(before))) - size(s)
	}
	if left > 0 {
		return min(share, left)
	}
	return max(share, left)
}

// activeOrLatest gives the one set that has replicas, the latest one if none has, and nil if several have.
func activeOrLatest(newest *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	all := active(old)
	if size(newest) > 0 {
		all = append(all, newest)
	}
	switch {
	case len(all) == 1:
		return all[0]
	case len(all) > 1:
		return nil
	case newest != nil:
		return newest
	case len(old) > 0:
		return old[len(old)-1]
	}
	return nil
}

// isSaturated tells whether the newest set has all replicas, and all are available.
func isSaturated(desired int32, newest *appsv1.ReplicaSet) bool {
	if newest == nil {
		return false
	}
	n, ok := number(newest, desiredAnnotation)
	return ok && n == desired && size(newest) == desired && newest.Status.AvailableReplicas == desired
}

// olderFirst orders by age.
func olderFirst(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// sameTemplate tells whether the set is of the deployment's present template.
func sameTemplate(d *appsv1.Deployment, set *appsv1.ReplicaSet) bool {
	a, b := d.Spec.Template, set.Spec.Template
	a.Labels, b.Labels = withoutHash(a.Labels), withoutHash(b.Labels)
	return equality.Semantic.DeepEqual(a, b)
}

func withoutHash(in map[string]string) map[string]string {
	if _, there := in[appsv1.DefaultDeploymentUniqueLabelKey]; !there {
		return in
	}
	out := make(map[string]string, len(in))
	for k, v := range in {
		if k != appsv1.DefaultDeploymentUniqueLabelKey {
			out[k] = v
		}
	}
	return out
}

// surplusHistory gives the old sets that exceed the limit on history: those of the lowest revisions, unless they still
// have pods.
func surplusHistory(d *appsv1.Deployment, old []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	limit := ptr.Deref(d.Spec.RevisionHistoryLimit, math.MaxInt32)
	if limit == math.MaxInt32 {
		return nil
	}
	alive := slices.DeleteFunc(slices.Clone(old), func(s *appsv1.ReplicaSet) bool { return s.DeletionTimestamp != nil })
	if len(alive) <= int(limit) {
		return nil
	}
	slices.SortStableFunc(alive, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revision(a), revision(b)) })
	return slices.DeleteFunc(alive[:len(alive)-int(limit)], func(s *appsv1.ReplicaSet) bool {
		return s.Status.Replicas != 0 || size(s) != 0 || s.Generation > s.Status.ObservedGeneration
	})
}
