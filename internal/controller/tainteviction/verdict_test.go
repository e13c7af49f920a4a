package tainteviction

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestVerdict(t *testing.T) {
	seen := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	added := metav1.NewTime(seen.Add(-time.Minute))
	taint := func(key string) corev1.Taint { return corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute} }
	since := func(key string) corev1.Taint { x := taint(key); x.TimeAdded = &added; return x }
	tolerates := func(key string, seconds *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, TolerationSeconds: seconds}
	}
	for name, test := range map[string]struct {
		taints      []corev1.Taint
		tolerations []corev1.Toleration
		stays       bool
		until       time.Time
	}{
		"no taint":                    {nil, nil, true, time.Time{}},
		"not tolerated":               {[]corev1.Taint{taint("a")}, nil, false, time.Time{}},
		"tolerated for good":          {[]corev1.Taint{taint("a")}, []corev1.Toleration{tolerates("a", nil)}, true, time.Time{}},
		"tolerated for a time":        {[]corev1.Taint{taint("a")}, []corev1.Toleration{tolerates("a", ptr.To(int64(300)))}, false, seen.Add(300 * time.Second)},
		"since it was added":          {[]corev1.Taint{since("a")}, []corev1.Toleration{tolerates("a", ptr.To(int64(300)))}, false, seen.Add(240 * time.Second)},
		"one of two is not tolerated": {[]corev1.Taint{taint("a"), taint("b")}, []corev1.Toleration{tolerates("a", ptr.To(int64(300)))}, false, time.Time{}},
		"the shortest counts":         {[]corev1.Taint{taint("a"), taint("b")}, []corev1.Toleration{tolerates("a", ptr.To(int64(300))), tolerates("b", ptr.To(int64(10)))}, false, seen.Add(10 * time.Second)},
		"less than nothing is now":    {[]corev1.Taint{taint("a")}, []corev1.Toleration{tolerates("a", ptr.To(int64(-5)))}, false, seen},
		"everything is tolerated":     {[]corev1.Taint{taint("a"), taint("b")}, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, true, time.Time{}},
	} {
		if stays, until := verdict(test.taints, test.tolerations, seen); stays != test.stays || !until.Equal(test.until) {
			t.Errorf("%s: %v until %v, want %v until %v", name, stays, until, test.stays, test.until)
		}
	}
}
