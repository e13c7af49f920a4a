package framework

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
)

// Pod is a pod with everything about it that decisions need, computed once. It
// doesn't change, but for the object, which its owner replaces by newer ones that mean the same to decisions.
type Pod struct {
	*corev1.Pod
	Request     Resource // what the pod asks for, itself counted in Pods
	NonZero     Resource // MilliCPU and Memory with defaults for containers that ask for nothing
	Ports       []HostPort
	PodPriority int32

	RequiredAffinity      []AffinityTerm
	RequiredAntiAffinity  []AffinityTerm
	PreferredAffinity     []WeightedTerm
	PreferredAntiAffinity []WeightedTerm
	// Invalid says why the pod's affinity can't be understood; nil if it can.
	Invalid error
}

// NewPod computes what decisions need of a pod.
func NewPod(p *corev1.Pod) *Pod {
	out := &Pod{Pod: p, PodPriority: corev1helpers.PodPriority(p), Ports: hostPorts(p)}
	out.Request, out.NonZero = requests(p)
	out.Invalid = out.parseAffinity()
	return out
}

// HostPort is a port that a pod takes on its node.
type HostPort struct {
	IP       string // "0.0.0.0" is every address
	Protocol corev1.Protocol
	Port     int32
}

// Conflicts tells whether two pods on one node can't both have their port.
func (p HostPort) Conflicts(o HostPort) bool {
	return p.Port == o.Port && p.Protocol == o.Protocol && (p.IP == o.IP || p.IP == anyIP || o.IP == anyIP)
}

const anyIP = "0.0.0.0"

// hostPorts are the ports of containers and of init containers that go on (KEP-753).
func hostPorts(p *corev1.Pod) []HostPort {
	var out []HostPort
	add := func(c *corev1.Container) {
		for i := range c.Ports {
			if port := &c.Ports[i]; port.HostPort > 0 {
				hp := HostPort{IP: port.HostIP, Protocol: port.Protocol, Port: port.HostPort}
				if hp.IP == "" {
					hp.IP = anyIP
				}
				if hp.Protocol == "" {
					hp.Protocol = corev1.ProtocolTCP
				}
				out = append(out, hp)
			}
		}
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for i := range p.Spec.Containers {
		add(&p.Spec.Containers[i])
	}
	return out
}

// AffinityTerm is a term of pod affinity or anti-affinity.
type AffinityTerm struct {
	Namespaces        sets.Set[string]
	NamespaceSelector labels.Selector // nil: only Namespaces count
	anyNamespace      bool            // the selector is there and empty
	Selector          labels.Selector
	TopologyKey       string
}

// WeightedTerm is a preferred term.
type WeightedTerm struct {
	AffinityTerm
	Weight int32
}

// Matches tells whether the term selects the pod; namespaceLabels gives the labels of a namespace.
func (t *AffinityTerm) Matches(p *corev1.Pod, namespaceLabels func(string) labels.Set) bool {
	return t.Selector.Matches(labels.Set(p.Labels)) &&
		(t.Namespaces.Has(p.Namespace) || t.matchesNamespace(p.Namespace, namespaceLabels))
}

func (t *AffinityTerm) matchesNamespace(name string, namespaceLabels func(string) labels.Set) bool {
	if t.anyNamespace {
		return true
	}
	return t.NamespaceSelector != nil && t.NamespaceSelector.Matches(namespaceLabels(name))
}

func (p *Pod) parseAffinity() error {
	a := p.Spec.Affinity
	if a == nil {
		return nil
	}
	var err error
	if a.PodAffinity != nil {
		if p.RequiredAffinity, err = p.terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution); err != nil {
			return err
		}
		if p.PreferredAffinity, err = p.weighted(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
			return err
		}
	}
	if a.PodAntiAffinity != nil {
		if p.RequiredAntiAffinity, err = p.terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution); err != nil {
			return err
		}
		if p.PreferredAntiAffinity, err = p.weighted(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pod) terms(list []corev1.PodAffinityTerm) ([]AffinityTerm, error) {
	out := make([]AffinityTerm, 0, len(list))
	for i := range list {
		t, err := p.term(&list[i])
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func (p *Pod) weighted(list []corev1.WeightedPodAffinityTerm) ([]WeightedTerm, error) {
	out := make([]WeightedTerm, 0, len(list))
	for i := range list {
		t, err := p.term(&list[i].PodAffinityTerm)
		if err != nil {
			return nil, err
		}
		out = append(out, WeightedTerm{AffinityTerm: t, Weight: list[i].Weight})
	}
	return out, nil
}

func (p *Pod) term(t *corev1.PodAffinityTerm) (AffinityTerm, error) {
	selector, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
	if err != nil {
		return AffinityTerm{}, fmt.Errorf("parsing the label selector of an affinity term: %w", err)
	}
	selector = WithLabelKeys(selector, p.Labels, t.MatchLabelKeys, selection.In)
	selector = WithLabelKeys(selector, p.Labels, t.MismatchLabelKeys, selection.NotIn)
	out := AffinityTerm{Namespaces: sets.New(t.Namespaces...), Selector: selector, TopologyKey: t.TopologyKey}
	if t.NamespaceSelector != nil {
		if out.NamespaceSelector, err = metav1.LabelSelectorAsSelector(t.NamespaceSelector); err != nil {
			return AffinityTerm{}, fmt.Errorf("parsing the namespace selector of an affinity term: %w", err)
		}
		out.anyNamespace = out.NamespaceSelector.Empty()
	} else if len(t.Namespaces) == 0 {
		out.Namespaces.Insert(p.Namespace)
	}
	return out, nil
}

// WithLabelKeys adds to a selector that the labels named by keys have (In) or don't have (NotIn) the values that the pod
// has. Keys that the pod doesn't have, and those that the selector names already, are left out (KEP-3243, KEP-3633).
func WithLabelKeys(s labels.Selector, pod map[string]string, keys []string, op selection.Operator) labels.Selector {
	if len(keys) == 0 {
		return s
	}
	present, selectable := s.Requirements()
	if !selectable {
		return s
	}
	for _, key := range keys {
		value, ok := pod[key]
		if !ok {
			continue
		}
		r, err := labels.NewRequirement(key, op, []string{value})
		if err == nil && !slices.ContainsFunc(present, func(have labels.Requirement) bool { return have.Equal(*r) }) {
			s = s.Add(*r)
		}
	}
	return s
}
