package claim

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func owner() *corev1.ReplicationController {
	return &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "rc", UID: "rc-uid"}}
}

func pod(app, controller string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "pod-uid", Labels: map[string]string{"app": app}}}
	if controller != "" {
		p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(controller), Controller: ptr.To(true)}}
	}
	return p
}

func TestClaim(t *testing.T) {
	now := metav1.Now()
	deleting := func(p *corev1.Pod) *corev1.Pod { p.DeletionTimestamp = &now; return p }
	elsewhere := func(p *corev1.Pod) *corev1.Pod { p.Namespace = "other"; return p }
	for name, test := range map[string]struct {
		pod           *corev1.Pod
		ownerDeleting bool
		liveUID       string
		mine          bool
		patch         string // what the patch contains; empty: there is none
		err           string
	}{
		"its own":                        {pod: pod("web", "rc-uid"), mine: true},
		"another's":                      {pod: pod("web", "another")},
		"an orphan that matches":         {pod: pod("web", ""), mine: true, patch: `"controller":true`},
		"an orphan that doesn't":         {pod: pod("db", "")},
		"its own that matches no longer": {pod: pod("db", "rc-uid"), patch: `{"$patch":"delete","uid":"rc-uid"}`},
		"an orphan that is deleted":      {pod: deleting(pod("web", ""))},
		"an orphan elsewhere":            {pod: elsewhere(pod("web", ""))},
		"no adoption while deleted":      {pod: pod("web", ""), ownerDeleting: true},
		"no release while deleted":       {pod: pod("db", "rc-uid"), ownerDeleting: true},
		"no adoption when replaced":      {pod: pod("web", ""), liveUID: "newer", err: "original ReplicationController ns/rc is gone: got uid newer, wanted rc-uid"},
	} {
		t.Run(name, func(t *testing.T) {
			rc, patched := owner(), ""
			if test.ownerDeleting {
				rc.DeletionTimestamp = &now
			}
			o := Owner[*corev1.Pod]{
				Object: rc, Kind: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
				Selector: labels.SelectorFromSet(labels.Set{"app": "web"}),
				Live: func(context.Context) (metav1.Object, error) {
					live := owner()
					if test.liveUID != "" {
						live.UID = types.UID(test.liveUID)
					}
					return live, nil
				},
				Patch: func(_ context.Context, _ *corev1.Pod, patch []byte) error { patched = string(patch); return nil },
			}
			mine, err := o.Claim(t.Context(), []*corev1.Pod{test.pod})
			if (len(mine) == 1) != test.mine {
				t.Errorf("claimed %d", len(mine))
			}
			if test.patch == "" && patched != "" || !strings.Contains(patched, test.patch) {
				t.Errorf("patched %s, want %s", patched, test.patch)
			}
			if patched != "" && !strings.Contains(patched, `"uid":"pod-uid"`) {
				t.Errorf("the patch %s doesn't name the pod's uid", patched)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error is %v, want %s", err, test.err)
			}
		})
	}
}
