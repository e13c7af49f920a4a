package proxy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// selector leaves out what other proxies are for, and what has no address that is translated.
const selector = "!" + corev1.IsHeadlessService + ",!service.kubernetes.io/service-proxy-name"

// kinds is how many kinds of objects are watched.
const kinds = 4

// objects mirrors what the proxy needs of the API, and notes which services and pods have changed.
type objects struct {
	changed chan struct{} // holds one value when there is something to take

	mu       sync.Mutex
	services map[types.NamespacedName]*corev1.Service
	slices   map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice // by service, by name
	pods     map[types.NamespacedName]*corev1.Pod                           // of this node, with host ports; by holder
	zone     string
	dirty    map[types.NamespacedName]bool // services, and holders of pods
	unseen   int                           // kinds that have not been listed yet
}

func newObjects() *objects {
	return &objects{
		changed:  make(chan struct{}, 1),
		services: map[types.NamespacedName]*corev1.Service{},
		slices:   map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice{},
		pods:     map[types.NamespacedName]*corev1.Pod{},
		dirty:    map[types.NamespacedName]bool{},
		unseen:   kinds,
	}
}

// input is all that is known of one service, or the pod with that holder.
type input struct {
	name    types.NamespacedName
	service *corev1.Service // nil when there is none
	slices  []*discoveryv1.EndpointSlice
	pod     *corev1.Pod
}

// rules says what the service or the pod needs.
func (in input) rules(n node) rules {
	if in.pod != nil {
		return hostPortRules(in.pod, n)
	}
	return rulesFor(in.service, in.slices, n)
}

// take gives the services and pods that have changed since it was last called, in order, and the node's zone; ok is false as long as
// something has not been listed.
func (o *objects) take() (all []input, zone string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unseen > 0 {
		return nil, "", false
	}
	for name := range o.dirty {
		in := input{name: name, service: o.services[name], pod: o.pods[name]}
		if in.service != nil {
			for _, s := range o.slices[name] {
				in.slices = append(in.slices, s)
			}
		}
		all = append(all, in)
	}
	clear(o.dirty)
	slices.SortFunc(all, func(a, b input) int {
		return cmp.Or(cmp.Compare(a.name.Namespace, b.name.Namespace), cmp.Compare(a.name.Name, b.name.Name))
	})
	return all, o.zone, true
}

func (o *objects) touch(name types.NamespacedName) {
	o.dirty[name] = true
	o.wake()
}

func (o *objects) wake() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

func (o *objects) setService(name types.NamespacedName, s *corev1.Service) {
	if s == nil {
		delete(o.services, name)
	} else {
		// Of the metadata, rules depend on the name and the annotations only.
		s.ObjectMeta = metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Annotations: s.Annotations}
		o.services[name] = s
	}
	o.touch(name)
}

// setPod takes a pod of this node, nil when it is gone.
func (o *objects) setPod(old, now *corev1.Pod) {
	name := holderOf(cmp.Or(now, old))
	if now != nil && len(hostPorts(now)) > 0 {
		o.pods[name] = now
		o.touch(name)
	} else if o.pods[name] != nil {
		delete(o.pods, name)
		o.touch(name)
	}
}

// setSlice takes a slice, nil when it is gone. A slice that changes its service is not one that its controller makes, but is
// read all the same.
func (o *objects) setSlice(old, s *discoveryv1.EndpointSlice) {
	if old != nil {
		owner := serviceOf(old)
		delete(o.slices[owner], old.Name)
		if len(o.slices[owner]) == 0 {
			delete(o.slices, owner)
		}
		o.touch(owner)
	}
	if s == nil {
		return
	}
	owner := serviceOf(s)
	s.ObjectMeta = metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Labels: map[string]string{discoveryv1.LabelServiceName: owner.Name}}
	for i := range s.Endpoints {
		s.Endpoints[i].TargetRef = nil
	}
	if o.slices[owner] == nil {
		o.slices[owner] = map[string]*discoveryv1.EndpointSlice{}
	}
	o.slices[owner][s.Name] = s
	o.touch(owner)
}

func serviceOf(s *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

// setZone takes the zone of the node, which every service may depend on.
func (o *objects) setZone(zone string) {
	if zone == o.zone {
		return
	}
	o.zone = zone
	for name := range o.services {
		o.dirty[name] = true
	}
	o.wake()
}

// mirror is the store of a reflector: every event goes to set, with the object before and after it.
type mirror[T metav1.Object] struct {
	o       *objects
	current map[types.NamespacedName]T
	set     func(old, now T)
	kind    T
	listed  bool
}

func (m *mirror[T]) Add(obj any) error    { return m.put(obj) }
func (m *mirror[T]) Update(obj any) error { return m.put(obj) }
func (m *mirror[T]) Resync() error        { return nil }

func (m *mirror[T]) put(obj any) error {
	now, ok := obj.(T)
	if !ok {
		return fmt.Errorf("unexpected object %T", obj)
	}
	m.o.mu.Lock()
	defer m.o.mu.Unlock()
	m.change(now)
	return nil
}

func (m *mirror[T]) change(now T) {
	key := types.NamespacedName{Namespace: now.GetNamespace(), Name: now.GetName()}
	old := m.current[key]
	m.current[key] = now
	m.set(old, now)
}

func (m *mirror[T]) Delete(obj any) error {
	gone, ok := obj.(T)
	if !ok {
		return fmt.Errorf("unexpected object %T", obj)
	}
	m.o.mu.Lock()
	defer m.o.mu.Unlock()
	m.remove(types.NamespacedName{Namespace: gone.GetNamespace(), Name: gone.GetName()})
	return nil
}

func (m *mirror[T]) remove(key types.NamespacedName) {
	old, ok := m.current[key]
	if !ok {
		return
	}
	delete(m.current, key)
	var none T
	m.set(old, none)
}

func (m *mirror[T]) Replace(list []any, _ string) error {
	m.o.mu.Lock()
	defer m.o.mu.Unlock()
	kept := make(map[types.NamespacedName]bool, len(list))
	for _, obj := range list {
		now, ok := obj.(T)
		if !ok {
			return fmt.Errorf("unexpected object %T", obj)
		}
		kept[types.NamespacedName{Namespace: now.GetNamespace(), Name: now.GetName()}] = true
		m.change(now)
	}
	for key := range m.current {
		if !kept[key] {
			m.remove(key)
		}
	}
	if !m.listed {
		m.listed = true
		m.o.unseen--
		m.o.wake()
	}
	return nil
}

// watch runs reflectors until ctx ends. Pods are read by the node's own client.
func (o *objects) watch(ctx context.Context, client, nodeClient kubernetes.Interface, nodeName string) {
	services := &mirror[*corev1.Service]{o: o, kind: &corev1.Service{}, current: map[types.NamespacedName]*corev1.Service{}, set: func(old, now *corev1.Service) {
		o.setService(nameOf(cmp.Or(now, old)), now)
	}}
	endpointSlices := &mirror[*discoveryv1.EndpointSlice]{o: o, kind: &discoveryv1.EndpointSlice{}, current: map[types.NamespacedName]*discoveryv1.EndpointSlice{}, set: o.setSlice}
	nodes := &mirror[*corev1.Node]{o: o, kind: &corev1.Node{}, current: map[types.NamespacedName]*corev1.Node{}, set: func(_, now *corev1.Node) {
		if now == nil {
			return
		}
		o.setZone(now.Labels[corev1.LabelTopologyZone])
		*now = corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: now.Name}} // it is kept, but not needed
	}}
	pods := &mirror[*corev1.Pod]{o: o, kind: &corev1.Pod{}, current: map[types.NamespacedName]*corev1.Pod{}, set: func(old, now *corev1.Pod) {
		if now != nil {
			*now = *trimmed(now)
		}
		o.setPod(old, now)
	}}
	onNode := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", nodeName).String()}
	byLabel := metav1.ListOptions{LabelSelector: selector}
	byName := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, nodeName).String()}
	var all sync.WaitGroup
	reflect(ctx, &all, client, client.CoreV1().Services(metav1.NamespaceAll), byLabel, services)
	reflect(ctx, &all, client, client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll), byLabel, endpointSlices)
	reflect(ctx, &all, client, client.CoreV1().Nodes(), byName, nodes)
	reflect(ctx, &all, nodeClient, nodeClient.CoreV1().Pods(metav1.NamespaceAll), onNode, pods)
	all.Wait()
}

// collection is the typed client of a kind.
type collection[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// reflect keeps a mirror up to date until ctx ends.
func reflect[T interface {
	metav1.Object
	runtime.Object
	comparable
}, L runtime.Object](ctx context.Context, all *sync.WaitGroup, client kubernetes.Interface, of collection[L], selected metav1.ListOptions, m *mirror[T]) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector, o.FieldSelector = selected.LabelSelector, selected.FieldSelector
			return of.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector, o.FieldSelector = selected.LabelSelector, selected.FieldSelector
			return of.Watch(ctx, o)
		},
	}
	r := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, client), m.kind, m, cache.ReflectorOptions{Name: "service proxy"})
	all.Go(func() { r.RunWithContext(ctx) })
}
