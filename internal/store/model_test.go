package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// modelPod is what the model knows of a pod.
type modelPod struct {
	namespace, app, node string
	rev                  int64
}

// model keeps every state there ever was, as plainly as can be.
type model struct {
	states map[int64]map[string]modelPod
	revs   []int64
}

func (m *model) latest() map[string]modelPod {
	if len(m.revs) == 0 {
		return nil
	}
	return m.states[m.revs[len(m.revs)-1]]
}

func (m *model) record(rev int64, change func(map[string]modelPod)) {
	next := maps.Clone(m.latest())
	if next == nil {
		next = map[string]modelPod{}
	}
	change(next)
	m.states[rev] = next
	m.revs = append(m.revs, rev)
}

// at is the state at a revision, which may lie between changes.
func (m *model) at(rev int64) map[string]modelPod {
	i, found := slices.BinarySearch(m.revs, rev)
	if !found {
		i--
	}
	if i < 0 {
		return nil
	}
	return m.states[m.revs[i]]
}

// filter is what a list or watch of the test asks for.
type filter struct{ namespace, app, node string }

func (s filter) matches(p modelPod) bool {
	return (s.namespace == "" || s.namespace == p.namespace) && (s.app == "" || s.app == p.app) && (s.node == "" || s.node == p.node)
}

func (s filter) selectors() (labels.Selector, fields.Selector) {
	ls, fs := labels.Everything(), fields.Everything()
	if s.app != "" {
		ls = labels.SelectorFromSet(labels.Set{"app": s.app})
	}
	if s.node != "" {
		fs = fields.OneTermEqualSelector("spec.nodeName", s.node)
	}
	return ls, fs
}

func (s filter) of(state map[string]modelPod) map[string]int64 {
	out := map[string]int64{}
	for key, p := range state {
		if s.matches(p) {
			out[key] = p.rev
		}
	}
	return out
}

func pick(rng *rand.Rand, prefix string, n int, orNone bool) string {
	if orNone && rng.IntN(3) > 0 {
		return ""
	}
	return fmt.Sprint(prefix, rng.IntN(n))
}

func randomFilter(rng *rand.Rand) filter {
	return filter{pick(rng, "ns", 3, true), pick(rng, "app", 3, true), pick(rng, "node", 4, true)}
}

// modelWatch follows a watch and keeps what it has seen.
type modelWatch struct {
	w    *Watch
	sel  filter
	seen map[string]int64
	rev  int64
}

func (mw *modelWatch) follow(t *testing.T, m *model, to int64) {
	t.Helper()
	for !maps.Equal(mw.seen, mw.sel.of(m.at(to))) {
		events, err := mw.w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Rev < mw.rev && e.Type != InitialEnd && mw.rev != 0 {
				t.Fatalf("event at %d after %d", e.Rev, mw.rev)
			}
			switch e.Type {
			case Added, Modified:
				if _, have := mw.seen[e.Object.Key]; have != (e.Type == Modified) {
					t.Fatalf("%s at %d, and it was there: %v", describe([]Event{e}), e.Rev, have)
				}
				mw.seen[e.Object.Key] = e.Rev
			case Deleted:
				if _, have := mw.seen[e.Object.Key]; !have {
					t.Fatalf("%s at %d, and it was not there", describe([]Event{e}), e.Rev)
				}
				delete(mw.seen, e.Object.Key)
			}
		}
		// Initial events are in the order of keys, and are checked as a whole.
		if mw.rev = events[len(events)-1].Rev; mw.rev > to {
			t.Fatalf("seen %v up to %d, want %v", mw.seen, mw.rev, mw.sel.of(m.at(to)))
		}
	}
}

// TestModel does random writes, lists and watches, and compares all with the model. Two stores share the etcd, so that
// changes come from within and from elsewhere.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	e := testEtcd(t)
	caches := []*Cache{
		openStore(t, e, Options{Rev: e.Rev}).Register(podResource),
		openStore(t, e, Options{}).Register(podResource),
	}
	for _, c := range caches { // so that watches can begin at the first revision of the model
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m := &model{states: map[int64]map[string]modelPod{}}
	var watches []*modelWatch
	for step := range 3000 {
		c := caches[rng.IntN(2)]
		switch n := rng.IntN(100); {
		case n < 60:
			randomWrite(t, rng, c, m)
		case n < 75 && len(m.revs) > 0:
			compareList(t, rng, c, m)
		case n < 80 && len(m.revs) > 0:
			watches = append(watches, randomWatch(t, rng, c, m))
		case n < 95 && len(watches) > 0:
			watches[rng.IntN(len(watches))].follow(t, m, m.revs[len(m.revs)-1])
		case len(watches) > 20:
			i := rng.IntN(len(watches))
			watches[i].w.Stop()
			watches = slices.Delete(watches, i, i+1)
		}
		if t.Failed() {
			t.Fatalf("at step %d", step)
		}
	}
	for _, w := range watches {
		w.follow(t, m, m.revs[len(m.revs)-1])
	}
}

func randomWrite(t *testing.T, rng *rand.Rand, c *Cache, m *model) {
	t.Helper()
	want := modelPod{namespace: pick(rng, "ns", 3, false), app: pick(rng, "app", 3, false), node: pick(rng, "node", 4, true)}
	name := fmt.Sprintf("p%d", rng.IntN(200))
	key := want.namespace + "/" + name
	_, have := m.latest()[key]
	var o *Object
	var err error
	fill := func(p *corev1.Pod) { p.Labels["app"], p.Spec.NodeName = want.app, want.node }
	switch rng.IntN(4) {
	case 0:
		if o, err = c.Delete(t.Context(), want.namespace, name, nil); err == nil {
			m.record(o.Rev, func(s map[string]modelPod) { delete(s, key) })
		}
		if have == errors.Is(err, ErrNotFound) {
			t.Errorf("deleting %s, there %v: %v", key, have, err)
		}
		return
	case 1:
		o, err = c.Update(t.Context(), want.namespace, name, changePod(fill))
		if have == errors.Is(err, ErrNotFound) {
			t.Errorf("updating %s, there %v: %v", key, have, err)
		}
	default:
		p := newPod(want.namespace, name)
		fill(p)
		o, err = c.Create(t.Context(), want.namespace, name, p, nil)
		if have != errors.Is(err, ErrExists) {
			t.Errorf("creating %s, there %v: %v", key, have, err)
		}
	}
	if err != nil {
		return
	}
	want.rev = o.Rev
	if old := m.latest()[key]; old.rev != want.rev { // an update may have had nothing to do
		m.record(o.Rev, func(s map[string]modelPod) { s[key] = want })
	}
}

func compareList(t *testing.T, rng *rand.Rand, c *Cache, m *model) {
	t.Helper()
	s := randomFilter(rng)
	o := ListOptions{Namespace: s.namespace}
	o.Labels, o.Fields = s.selectors()
	last := m.revs[len(m.revs)-1]
	switch rng.IntN(3) {
	case 0:
		o.Match, o.Rev = MatchExact, m.revs[rng.IntN(len(m.revs))]
	case 1:
		o.Match, o.Rev = MatchNotOlder, last
	}
	if rng.IntN(2) == 0 {
		o.Limit = int64(1 + rng.IntN(40))
	}
	got := map[string]int64{}
	var order []string
	var rev int64
	for {
		l := mustList(t, c, o)
		for _, x := range l.Objects {
			got[x.Key] = x.Rev
			order = append(order, x.Key)
		}
		rev = l.Rev
		if !l.More {
			break
		}
		o.Match, o.Rev, o.Continue = MatchExact, rev, l.Objects[len(l.Objects)-1].Key
		if rng.IntN(3) == 0 {
			randomWrite(t, rng, c, m)
		}
	}
	if o.Match == MatchLatest && rev < last {
		t.Errorf("list at %d, the latest is %d", rev, last)
	}
	if want := s.of(m.at(rev)); !maps.Equal(got, want) || len(order) != len(want) || !slices.IsSorted(order) {
		t.Errorf("list of %+v with %+v at %d: got %v, want %v", s, o, rev, got, want)
	}
}

func randomWatch(t *testing.T, rng *rand.Rand, c *Cache, m *model) *modelWatch {
	t.Helper()
	mw := &modelWatch{sel: randomFilter(rng), seen: map[string]int64{}}
	o := WatchOptions{Namespace: mw.sel.namespace}
	o.Labels, o.Fields = mw.sel.selectors()
	if rng.IntN(2) == 0 {
		o.InitialEvents, o.Rev = true, -1
	} else {
		o.Rev = m.revs[max(0, len(m.revs)-1-rng.IntN(50))]
		mw.seen = mw.sel.of(m.at(o.Rev))
		mw.rev = o.Rev
	}
	w, err := c.Watch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	mw.w = w
	return mw
}
