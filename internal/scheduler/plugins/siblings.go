package plugins

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// siblings finds the pods that belong together.
type siblings struct {
	services    corelisters.ServiceLister
	controllers corelisters.ReplicationControllerLister
	replicaSets appslisters.ReplicaSetLister
	stateful    appslisters.StatefulSetLister
}

func newSiblings(f informers.SharedInformerFactory) *siblings {
	return &siblings{
		services:    f.Core().V1().Services().Lister(),
		controllers: f.Core().V1().ReplicationControllers().Lister(),
		replicaSets: f.Apps().V1().ReplicaSets().Lister(),
		stateful:    f.Apps().V1().StatefulSets().Lister(),
	}
}

// selector selects the pods that are in all services of the pod and have its controller; it is empty if there are neither.
func (s *siblings) selector(p *corev1.Pod) labels.Selector {
	set := labels.Set{}
	if len(p.Labels) > 0 {
		if services, err := s.services.Services(p.Namespace).List(labels.Everything()); err == nil {
			for _, service := range services {
				if len(service.Spec.Selector) > 0 && selects(service.Spec.Selector, p.Labels) {
					set = labels.Merge(set, service.Spec.Selector)
				}
			}
		}
	}
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil {
		return set.AsSelectorPreValidated()
	}
	var also *metav1.LabelSelector
	switch owner.Kind {
	case "ReplicationController":
		if c, err := s.controllers.ReplicationControllers(p.Namespace).Get(owner.Name); err == nil {
			set = labels.Merge(set, c.Spec.Selector)
		}
	case "ReplicaSet":
		if c, err := s.replicaSets.ReplicaSets(p.Namespace).Get(owner.Name); err == nil {
			also = c.Spec.Selector
		}
	case "StatefulSet":
		if c, err := s.stateful.StatefulSets(p.Namespace).Get(owner.Name); err == nil {
			also = c.Spec.Selector
		}
	}
	selector := set.AsSelectorPreValidated()
	if also == nil {
		return selector
	}
	more, err := metav1.LabelSelectorAsSelector(also)
	if err != nil {
		return selector
	}
	requirements, _ := more.Requirements()
	return selector.Add(requirements...)
}

func selects(selector, have map[string]string) bool {
	for k, v := range selector {
		if w, ok := have[k]; !ok || v != w {
			return false
		}
	}
	return true
}
