package scheduler

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// announcers is how many events about bound pods are written at the same time: few, so that in a burst of pods the bindings
// are not held up by their events.
const announcers = 2

// announcer tells users of pods that were bound. There is one such event in a pod's life, so unlike those of a recorder
// none has to be remembered for being counted.
type announcer struct {
	s        *Scheduler
	instance string

	mu      sync.Mutex
	pending []announcement
	running int
}

// announcement is an event to be written.
type announcement struct {
	at              time.Time
	namespace, name string
	uid             types.UID
	version         string
	profile, node   string
}

func newAnnouncer(s *Scheduler) *announcer {
	host, _ := os.Hostname() // it is only for people
	return &announcer{s: s, instance: "-" + host}
}

// bound has the event written that a pod was bound. It may be called by goroutines that Run waits for.
func (n *announcer) bound(ctx context.Context, a *attempt) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = append(n.pending, announcement{
		at: n.s.Clock.Now(), namespace: a.Pod.Namespace, name: a.Pod.Name, uid: a.Pod.UID, version: a.Pod.ResourceVersion,
		profile: a.profile.name, node: a.node,
	})
	if n.running < announcers {
		n.running++
		n.s.owned.Go(func() { n.run(ctx) })
	}
}

func (n *announcer) run(ctx context.Context) {
	for {
		n.mu.Lock()
		if len(n.pending) == 0 || ctx.Err() != nil {
			n.pending = nil
			n.running--
			n.mu.Unlock()
			return
		}
		a := n.pending[0]
		n.pending = n.pending[1:]
		n.mu.Unlock()
		_, err := n.s.Client.EventsV1().Events(a.namespace).Create(ctx, n.event(&a), metav1.CreateOptions{})
		if err != nil && ctx.Err() == nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			n.s.Log.Warn("writing the event that a pod was bound", "pod", a.namespace+"/"+a.name, "error", err)
		}
	}
}

func (n *announcer) event(a *announcement) *eventsv1.Event {
	return &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: fmt.Sprintf("%s.%x", a.name, a.at.UnixNano())},
		EventTime:  metav1.NewMicroTime(a.at), Type: corev1.EventTypeNormal, Reason: "Scheduled", Action: "Binding",
		Note:                fmt.Sprintf("Successfully assigned %s/%s to %s", a.namespace, a.name, a.node),
		ReportingController: a.profile, ReportingInstance: a.profile + n.instance,
		Regarding: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: a.namespace, Name: a.name, UID: a.uid, ResourceVersion: a.version,
		},
	}
}
