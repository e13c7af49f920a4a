package deployment

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// step is one pass over one deployment.
type step struct {
	*rollout
	d      *appsv1.Deployment // to be changed and written
	was    *appsv1.Deployment // as the lister has it: shared
	newest *appsv1.ReplicaSet // of the present template; nil when there is none yet
	old    []*appsv1.ReplicaSet
	now    time.Time
}

// split tells the newest set from the old ones. sets is ordered by age.
func (s *step) split(sets []*appsv1.ReplicaSet) {
	for _, set := range sets {
		if s.newest == nil && sameTemplate(s.d, set) {
			s.newest = set
		} else {
			s.old = append(s.old, set)
		}
	}
}

// markPaused sets the condition Progressing when the deployment was paused or resumed since the last pass; it reports
// whether the status must be written for that.
func (s *step) markPaused() bool {
	if !hasDeadline(s.d) {
		return false
	}
	c := condition(&s.d.Status, appsv1.DeploymentProgressing)
	if c != nil && c.Reason == reasonTimedOut {
		return false // The failure is more important.
	}
	isPaused := c != nil && c.Reason == reasonPaused
	switch {
	case s.d.Spec.Paused && !isPaused:
		setCondition(&s.d.Status, progressing(corev1.ConditionUnknown, reasonPaused, "Deployment is paused"), s.now)
	case !s.d.Spec.Paused && isPaused:
		setCondition(&s.d.Status, progressing(corev1.ConditionUnknown, reasonResumed, "Deployment is resumed"), s.now)
	default:
		return false
	}
	return true
}

// paused handles a paused deployment: it can be scaled, but isn't rolled out.
func (s *step) paused(ctx context.Context) error {
	if _, err := s.ensureNewest(ctx, false); err != nil {
		return err
	}
	if _, err := s.scale(ctx, planScale(s.d, s.newest, s.old)); err != nil {
		return err
	}
	if err := s.cleanUp(ctx); err != nil {
		return err
	}
	return s.writeStatus(ctx)
}

// scaled handles a change of the number of replicas.
func (s *step) scaled(ctx context.Context) error {
	if _, err := s.ensureNewest(ctx, false); err != nil {
		return err
	}
	if _, err := s.scale(ctx, planScale(s.d, s.newest, s.old)); err != nil {
		return err
	}
	return s.writeStatus(ctx)
}

// rolling takes a step of a rolling update.
func (s *step) rolling(ctx context.Context) error {
	if again, err := s.ensureNewest(ctx, true); err != nil || again {
		return err
	}
	if to := newSize(s.d, size(s.newest), total(s.old)); to != size(s.newest) {
		if _, err := s.scale(ctx, []scaling{{s.newest, to}}); err != nil {
			return err
		}
		return s.writeRollout(ctx)
	}
	changed, err := s.scale(ctx, planOld(s.d, s.newest, s.old))
	if err != nil {
		return err
	}
	if !changed && isComplete(s.d, &s.d.Status) {
		if err := s.cleanUp(ctx); err != nil {
			return err
		}
	}
	return s.writeRollout(ctx)
}

// recreate takes a step of a roll-out that ends all old pods before it starts new ones.
func (s *step) recreate(ctx context.Context) error {
	if _, err := s.ensureNewest(ctx, false); err != nil {
		return err
	}
	var plan []scaling
	for _, set := range active(s.old) {
		plan = append(plan, scaling{set, 0})
	}
	changed, err := s.scale(ctx, plan)
	if err != nil {
		return err
	}
	run, err := s.oldPodsRun(s.old)
	if err != nil {
		return err
	}
	if changed || run {
		return s.writeRollout(ctx)
	}
	if again, err := s.ensureNewest(ctx, true); err != nil || again {
		return err
	}
	if _, err := s.scale(ctx, []scaling{{s.newest, ptr.Deref(s.d.Spec.Replicas, 1)}}); err != nil {
		return err
	}
	if isComplete(s.d, &s.d.Status) {
		if err := s.cleanUp(ctx); err != nil {
			return err
		}
	}
	return s.writeRollout(ctx)
}

// ensureNewest brings the newest set's revision and annotations up to date, and creates the set if there is none and
// create is set. It reports whether the pass ends here, to go on when the informer shows what was written.
func (s *step) ensureNewest(ctx context.Context, create bool) (again bool, err error) {
	next := nextRevision(s.old)
	switch {
	case s.newest != nil:
		set := s.newest.DeepCopy()
		changed := inherit(s.d, set, next)
		if changed || set.Spec.MinReadySeconds != s.d.Spec.MinReadySeconds {
			set.Spec.MinReadySeconds = s.d.Spec.MinReadySeconds
			if s.newest, err = s.update(ctx, set); err != nil {
				return false, err
			}
		}
		s.setRevision(s.newest)
		if hasDeadline(s.d) && condition(&s.d.Status, appsv1.DeploymentProgressing) == nil {
			message := fmt.Sprintf("Found new replica set %q", s.newest.Name)
			setCondition(&s.d.Status, progressing(corev1.ConditionTrue, reasonFound, message), s.now)
		}
		return false, nil
	case !create:
		return false, nil
	}
	return s.createNewest(ctx)
}

func (s *step) createNewest(ctx context.Context) (again bool, err error) {
	set, err := newSet(s.d, s.old)
	if err != nil {
		return false, fmt.Errorf("making a replica set of the template: %w", err)
	}
	created, err := s.env.Client.AppsV1().ReplicaSets(s.d.Namespace).Create(ctx, set, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return s.collided(ctx, set.Name)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return true, nil
	case err != nil:
		message := fmt.Sprintf("Failed to create new replica set %q: %v", set.Name, err)
		s.env.Events.Event(s.d, corev1.EventTypeWarning, reasonCreateFailed, message)
		if hasDeadline(s.d) {
			setCondition(&s.d.Status, progressing(corev1.ConditionFalse, reasonCreateFailed, message), s.now)
			if statusErr := s.writeConditions(ctx); statusErr != nil {
				s.env.Log.Warn("writing the status of a deployment", "key", s.d.Namespace+"/"+s.d.Name, "err", statusErr)
			}
		}
		return false, err
	}
	s.newest = created
	if n := size(created); n > 0 {
		s.env.Events.Eventf(s.d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", created.Name, n)
	}
	s.setRevision(created)
	if hasDeadline(s.d) {
		message := fmt.Sprintf("Created new replica set %q", created.Name)
		setCondition(&s.d.Status, progressing(corev1.ConditionTrue, reasonCreated, message), s.now)
	}
	return false, nil
}

// collided handles that the name of the new set is taken: by the set itself, which the informer hasn't shown yet, or by
// another, in which case the next pass takes another name.
func (s *step) collided(ctx context.Context, name string) (again bool, err error) {
	there, err := s.env.Client.AppsV1().ReplicaSets(s.d.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return false, fmt.Errorf("reading the replica set of the same name: %w", err)
	}
	if metav1.IsControlledBy(there, s.d) && sameTemplate(s.d, there) {
		s.newest = there
		s.setRevision(there)
		return false, nil
	}
	s.d.Status.CollisionCount = ptr.To(ptr.Deref(s.d.Status.CollisionCount, 0) + 1)
	return true, s.writeConditions(ctx)
}

// setRevision takes over the revision of the newest set.
func (s *step) setRevision(set *appsv1.ReplicaSet) {
	if n := revision(set); n != revision(s.d) {
		if s.d.Annotations == nil {
			s.d.Annotations = make(map[string]string)
		}
		s.d.Annotations[revisionAnnotation] = strconv.FormatInt(n, 10)
	}
}

// scale carries out a plan; it reports whether the size of any set changed.
func (s *step) scale(ctx context.Context, plan []scaling) (changed bool, err error) {
	b := boundsOf(s.d)
	for _, p := range plan {
		set, from := p.set.DeepCopy(), size(p.set)
		if !annotate(set, b) && from == p.to {
			continue
		}
		set.Spec.Replicas = ptr.To(p.to)
		updated, err := s.update(ctx, set)
		if err != nil {
			return changed, err
		}
		s.replace(updated)
		if from != p.to {
			changed = true
			direction := "up"
			if p.to < from {
				direction = "down"
			}
			s.env.Events.Eventf(s.d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", direction, set.Name, from, p.to)
		}
	}
	return changed, nil
}

func (s *step) update(ctx context.Context, set *appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
	return s.env.Client.AppsV1().ReplicaSets(set.Namespace).Update(ctx, set, metav1.UpdateOptions{})
}

// replace puts the new state of a set in the place of the one that the step knows.
func (s *step) replace(set *appsv1.ReplicaSet) {
	if s.newest != nil && s.newest.UID == set.UID {
		s.newest = set
	}
	for i := range s.old {
		if s.old[i].UID == set.UID {
			s.old[i] = set
		}
	}
}

// cleanUp deletes old sets beyond the limit on history.
func (s *step) cleanUp(ctx context.Context) error {
	for _, set := range surplusHistory(s.d, s.old) {
		err := s.env.Client.AppsV1().ReplicaSets(set.Namespace).Delete(ctx, set.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(set.UID))})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting the old replica set %s: %w", set.Name, err)
		}
	}
	return nil
}

// writeStatus writes numbers and availability; the progress is left as it is.
func (s *step) writeStatus(ctx context.Context) error {
	sets := slices.Clone(s.old)
	if s.newest != nil {
		sets = append(sets, s.newest)
	}
	s.d.Status = observed(s.d, sets, s.newest, s.now)
	return s.writeConditions(ctx)
}

// writeRollout writes the whole status, and comes back when the deadline has passed.
func (s *step) writeRollout(ctx context.Context) error {
	s.d.Status = rolloutStatus(s.d, s.old, s.newest, s.now)
	if err := s.writeConditions(ctx); err != nil {
		return err
	}
	if after := untilTimeout(s.d, &s.d.Status, s.now); after > 0 {
		s.env.Queue.AddAfter(s.d.Namespace+"/"+s.d.Name, after)
	}
	return nil
}

// writeConditions writes status and revision as they stand, if they differ from what is there.
func (s *step) writeConditions(ctx context.Context) error {
	if equality.Semantic.DeepEqual(s.d.Status, s.was.Status) && maps.Equal(s.d.Annotations, s.was.Annotations) {
		return nil
	}
	_, err := s.env.Client.AppsV1().Deployments(s.d.Namespace).UpdateStatus(ctx, s.d, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
