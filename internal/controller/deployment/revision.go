package deployment

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/proa-k8s/proa/internal/controller/claim"
)

// The annotations by which deployments and their sets keep revisions and sizes; clients (kubectl rollout) read them.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
)

// ownAnnotations are not copied from a deployment to its sets.
var ownAnnotations = map[string]bool{
	corev1.LastAppliedConfigAnnotation: true,
	revisionAnnotation:                 true,
	historyAnnotation:                  true,
	desiredAnnotation:                  true,
	maxAnnotation:                      true,
	appsv1.DeprecatedRollbackTo:        true,
}

// revision is the revision of a set or deployment, 0 when it has none.
func revision(obj metav1.Object) int64 {
	n, err := strconv.ParseInt(obj.GetAnnotations()[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// number reads an annotation that holds a number of replicas.
func number(set *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseInt(set.Annotations[key], 10, 32)
	return int32(n), err == nil
}

// annotate records in a set for what size of the deployment it was sized; it reports whether that is new.
func annotate(set *appsv1.ReplicaSet, b bounds) bool {
	desired, most := strconv.Itoa(int(b.desired)), strconv.Itoa(int(b.desired+b.surge))
	if set.Annotations[desiredAnnotation] == desired && set.Annotations[maxAnnotation] == most {
		return false
	}
	if set.Annotations == nil {
		set.Annotations = make(map[string]string)
	}
	set.Annotations[desiredAnnotation], set.Annotations[maxAnnotation] = desired, most
	return true
}

// inherit gives the newest set its revision and the deployment's annotations; it reports whether anything changed. The
// revisions that a set had before, when the deployment returns to it, are kept as its history.
func inherit(d *appsv1.Deployment, set *appsv1.ReplicaSet, next int64) bool {
	before := maps.Clone(set.Annotations)
	if set.Annotations == nil {
		set.Annotations = make(map[string]string)
	}
	for k, v := range d.Annotations {
		if !ownAnnotations[k] {
			set.Annotations[k] = v
		}
	}
	if was := revision(set); was < next {
		if was > 0 {
			history := strings.FieldsFunc(set.Annotations[historyAnnotation], func(c rune) bool { return c == ',' })
			set.Annotations[historyAnnotation] = strings.Join(append(history, strconv.FormatInt(was, 10)), ",")
		}
		set.Annotations[revisionAnnotation] = strconv.FormatInt(next, 10)
	}
	return !maps.Equal(before, set.Annotations)
}

// nextRevision is one more than any of the old sets has.
func nextRevision(old []*appsv1.ReplicaSet) int64 {
	var most int64
	for _, s := range old {
		most = max(most, revision(s))
	}
	return most + 1
}

// templateHash names a template. The same template gives the same name as long as there is no collision, of which
// collisions counts how many there were.
func templateHash(t *corev1.PodTemplateSpec, collisions *int32) (string, error) {
	data, err := t.Marshal()
	if err != nil {
		return "", err
	}
	h := fnv.New32a()
	h.Write(data)
	if collisions != nil {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(*collisions)))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10)), nil
}

// newSet makes the set for the deployment's present template.
func newSet(d *appsv1.Deployment, old []*appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
	hash, err := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	if err != nil {
		return nil, err
	}
	template := *d.Spec.Template.DeepCopy()
	template.Labels = withLabel(template.Labels, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = withLabel(selector.MatchLabels, hash)
	replicas := newSize(d, 0, total(old))
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name:            d.Name + "-" + hash,
			Namespace:       d.Namespace,
			Labels:          template.Labels,
			OwnerReferences: []metav1.OwnerReference{*claim.Reference(d, deploymentKind)},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        &replicas,
			MinReadySeconds: d.Spec.MinReadySeconds,
			Selector:        selector,
			Template:        template,
		},
	}
	annotate(set, boundsOf(d))
	inherit(d, set, nextRevision(old))
	return set, nil
}

func withLabel(in map[string]string, hash string) map[string]string {
	out := make(map[string]string, len(in)+1)
	maps.Copy(out, in)
	out[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return out
}
