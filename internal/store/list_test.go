package store

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

func sel(t testing.TB, s string) labels.Selector {
	t.Helper()
	out, err := labels.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestListSelects(t *testing.T) {
	c := testStore(t).Register(podResource)
	for i, ns := range []string{"a", "a", "a", "ab", "b"} {
		p := newPod(ns, fmt.Sprintf("p%d", i), "app", []string{"x", "y"}[i%2])
		p.Spec.NodeName = []string{"n0", "n1", ""}[i%3]
		mustCreate(t, c, p)
	}
	for _, tc := range []struct {
		namespace, labels, fields string
		want                      []string
	}{
		{"", "", "", []string{"a/p0", "a/p1", "a/p2", "ab/p3", "b/p4"}},
		{"a", "", "", []string{"a/p0", "a/p1", "a/p2"}},
		{"ab", "", "", []string{"ab/p3"}},
		{"c", "", "", nil},
		{"", "app=x", "", []string{"a/p0", "a/p2", "b/p4"}},
		{"a", "app in (x,z)", "", []string{"a/p0", "a/p2"}},
		{"", "app!=x", "", []string{"a/p1", "ab/p3"}},
		{"", "!app", "", nil},
		{"", "app,app notin (y)", "", []string{"a/p0", "a/p2", "b/p4"}},
		{"", "", "metadata.name=p3", []string{"ab/p3"}},
		{"a", "", "metadata.name=p1", []string{"a/p1"}},
		{"a", "app=x", "metadata.name=p1", nil},
		{"a", "", "metadata.name=p3", nil},
		{"", "", "metadata.namespace=b", []string{"b/p4"}},
		{"a", "", "metadata.namespace=b", nil},
		{"", "", "metadata.namespace!=a", []string{"ab/p3", "b/p4"}},
		{"", "", "metadata.name=p1,metadata.name=p2", nil},
		{"", "", "metadata.name=", nil},
		{"", "", "spec.nodeName=n0", []string{"a/p0", "ab/p3"}},
		{"", "app=x", "spec.nodeName=n0", []string{"a/p0"}},
		{"", "", "spec.nodeName=", []string{"a/p2"}},
		{"", "", "spec.nodeName!=n0", []string{"a/p1", "a/p2", "b/p4"}},
		{"", "", "spec.nodeName!=n0,spec.nodeName!=n1", []string{"a/p2"}},
		{"", "", "no.such=x", nil},
	} {
		t.Run(tc.namespace+" "+tc.labels+" "+tc.fields, func(t *testing.T) {
			o := ListOptions{Namespace: tc.namespace, Labels: sel(t, tc.labels)}
			if tc.fields != "" {
				o.Fields = fields.ParseSelectorOrDie(tc.fields)
			}
			l := mustList(t, c, o)
			if got := keys(l.Objects); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			if l.More || l.Remaining != 0 {
				t.Errorf("more %v, remaining %d", l.More, l.Remaining)
			}
			// A watch must see the same as initial events.
			w, err := c.Watch(t.Context(), WatchOptions{Namespace: o.Namespace, Labels: o.Labels, Fields: o.Fields, InitialEvents: true})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			var got []string
			for _, e := range next(t, w, len(tc.want)+1)[:len(tc.want)] {
				got = append(got, e.Object.Key)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("initial events %v, want %v", got, tc.want)
			}
		})
	}
	if l := mustList(t, c, ListOptions{Labels: labels.Nothing()}); len(l.Objects) != 0 {
		t.Errorf("labels.Nothing matches %v", keys(l.Objects))
	}
	if l := mustList(t, c, ListOptions{Fields: fields.Nothing()}); len(l.Objects) != 0 {
		t.Errorf("fields.Nothing matches %v", keys(l.Objects))
	}
}

// page reads a list to its end, calling between after each page.
func page(t *testing.T, c *Cache, o ListOptions, between func()) (all []string, remaining []int64) {
	t.Helper()
	for {
		l := mustList(t, c, o)
		all = append(all, keys(l.Objects)...)
		if !l.More {
			return all, remaining
		}
		if o.Rev != 0 && l.Rev != o.Rev {
			t.Errorf("a page has revision %d, the list %d", l.Rev, o.Rev)
		}
		remaining = append(remaining, l.Remaining)
		o.Match, o.Rev, o.Continue = MatchExact, l.Rev, l.Objects[len(l.Objects)-1].Key
		between()
	}
}

func TestPages(t *testing.T) {
	c := testStore(t).Register(podResource)
	var want []string
	for i := range 25 {
		o := mustCreate(t, c, newPod([]string{"a", "b"}[i/13], fmt.Sprintf("p%02d", i), "odd", fmt.Sprint(i%2)))
		want = append(want, o.Key)
	}
	// What happens meanwhile does not concern the list.
	churn := func() {
		mustDelete(t, c, "b", "p20")
		mustCreate(t, c, newPod("b", "p20"))
		mustCreate(t, c, newPod("b", "p99"))
		mustDelete(t, c, "b", "p99")
	}
	forget := func() {
		churn()
		c.mu.Lock()
		c.kept, c.shared = nil, nil
		c.mu.Unlock()
	}
	for name, between := range map[string]func(){"from memory": churn, "from etcd": forget} {
		t.Run(name, func(t *testing.T) {
			got, remaining := page(t, c, ListOptions{Limit: 10}, between)
			if !slices.Equal(got, want) || !slices.Equal(remaining, []int64{15, 5}) {
				t.Errorf("got %v, remaining %v", got, remaining)
			}
			got, remaining = page(t, c, ListOptions{Limit: 5, Namespace: "a"}, between)
			if !slices.Equal(got, want[:13]) || !slices.Equal(remaining, []int64{8, 3}) {
				t.Errorf("got %v, remaining %v", got, remaining)
			}
			got, remaining = page(t, c, ListOptions{Limit: 4, Namespace: "a", Labels: sel(t, "odd=1")}, between)
			if len(got) != 6 || !slices.Equal(remaining, []int64{-1}) {
				t.Errorf("got %v, remaining %v", got, remaining)
			}
		})
	}
	// A list that fits exactly has no more.
	if l := mustList(t, c, ListOptions{Limit: 13, Namespace: "a"}); l.More || len(l.Objects) != 13 {
		t.Errorf("%d objects, more %v", len(l.Objects), l.More)
	}
	// A continuation in the newest state, after that of the list is gone.
	if l := mustList(t, c, ListOptions{Continue: want[22]}); !slices.Equal(keys(l.Objects), want[23:]) {
		t.Errorf("got %v", keys(l.Objects))
	}
}

func TestListRevisions(t *testing.T) {
	t.Parallel() // it waits for a time-out
	s := testStore(t)
	c := s.Register(podResource)
	ctx := t.Context()
	first := mustCreate(t, c, newPod("ns", "a"))
	second := mustCreate(t, c, newPod("ns", "b"))

	l := mustList(t, c, ListOptions{Match: MatchExact, Rev: first.Rev})
	if l.Rev != first.Rev || !slices.Equal(keys(l.Objects), []string{"ns/a"}) {
		t.Errorf("at %d: %v at %d", first.Rev, keys(l.Objects), l.Rev)
	}
	if l = mustList(t, c, ListOptions{Match: MatchNotOlder, Rev: second.Rev}); l.Rev < second.Rev || len(l.Objects) != 2 {
		t.Errorf("not older than %d: %v at %d", second.Rev, keys(l.Objects), l.Rev)
	}
	_, err := c.List(ctx, ListOptions{Match: MatchExact, Rev: second.Rev + 1000})
	wantErr(t, err, ErrFuture)
	if _, err := s.client.Compact(ctx, second.Rev); err != nil {
		t.Fatal(err)
	}
	_, err = c.List(ctx, ListOptions{Match: MatchExact, Rev: first.Rev})
	wantErr(t, err, ErrExpired)
	if _, err = c.List(ctx, ListOptions{Match: MatchExact}); err == nil {
		t.Error("a list at exactly revision 0 succeeded")
	}
}

// TestForeignRevision lists after a write that is none of the store's: the watch delivers nothing for it.
func TestForeignRevision(t *testing.T) {
	e := testEtcd(t)
	for name, o := range map[string]Options{"asked": {}, "known": {Rev: e.Rev}} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, e, o)
			c := s.Register(podResource)
			resp, err := e.Client().Put(t.Context(), "compact_rev_key", "1")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			l, err := c.List(ctx, ListOptions{})
			if err != nil || l.Rev < resp.Header.Revision {
				t.Fatalf("%+v, %v", l, err)
			}
		})
	}
}

// TestIndexes checks that an index gives what a search does, while objects change.
func TestIndexes(t *testing.T) {
	c := testStore(t).Register(podResource)
	for i := range indexFrom + 20 {
		p := newPod("ns", fmt.Sprintf("p%03d", i), "n", fmt.Sprint(i%40))
		p.Spec.NodeName = fmt.Sprintf("n%d", i%50)
		mustCreate(t, c, p)
	}
	onNode := ListOptions{Fields: fields.OneTermEqualSelector("spec.nodeName", "n7")}
	labelled := ListOptions{Labels: sel(t, "n=9")}
	check := func(o ListOptions, want ...string) {
		t.Helper()
		if got := keys(mustList(t, c, o).Objects); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	check(onNode, "ns/p007", "ns/p057", "ns/p107", "ns/p157", "ns/p207", "ns/p257")
	check(labelled, "ns/p009", "ns/p049", "ns/p089", "ns/p129", "ns/p169", "ns/p209", "ns/p249")
	if len(c.indexes) != 1 {
		t.Fatalf("%d indexes", len(c.indexes))
	}
	// There are only so many; what has none is searched.
	for i := range maxIndexes + 2 {
		check(ListOptions{Fields: fields.OneTermEqualSelector(fmt.Sprintf("no.such%d", i), "x")})
	}
	if len(c.indexes) != maxIndexes {
		t.Errorf("%d indexes", len(c.indexes))
	}
	mustDelete(t, c, "ns", "p107")
	mustUpdate(t, c, "ns", "p057", func(p *corev1.Pod) { p.Spec.NodeName = "n8" })
	mustUpdate(t, c, "ns", "p008", func(p *corev1.Pod) { p.Spec.NodeName = "n7"; p.Labels["n"] = "9" })
	mustUpdate(t, c, "ns", "p007", func(p *corev1.Pod) { p.Labels["n"] = "9" })
	check(onNode, "ns/p007", "ns/p008", "ns/p157", "ns/p207", "ns/p257")
	check(labelled, "ns/p007", "ns/p008", "ns/p009", "ns/p049", "ns/p089", "ns/p129", "ns/p169", "ns/p209", "ns/p249")
	both := onNode
	both.Labels = labelled.Labels
	check(both, "ns/p007", "ns/p008")
	if o := mustList(t, c, onNode).Objects[0]; o.Labels().Get("n") != "9" {
		t.Error("the index holds an old state")
	}
	onNode.Limit = 2
	got, remaining := page(t, c, onNode, func() { mustUpdate(t, c, "ns", "p000", func(p *corev1.Pod) { p.Labels["x"] += "y" }) })
	if len(got) != 5 || !slices.Equal(remaining, []int64{-1, -1}) {
		t.Errorf("got %v, remaining %v", got, remaining)
	}
	// The label is there or not: the empty value must not be taken for the missing one.
	mustUpdate(t, c, "ns", "p001", func(p *corev1.Pod) { p.Labels["empty"] = "" })
	check(ListOptions{Labels: sel(t, "empty=")}, "ns/p001")
}

// TestFill fills a cache with several pages of what is stored already, while more is written.
func TestFill(t *testing.T) {
	e := testEtcd(t)
	writer := openStore(t, e, Options{Rev: e.Rev}).Register(podResource)
	for i := range pageSize + pageSize/2 {
		mustCreate(t, writer, newPod("ns", fmt.Sprintf("p%04d", i)))
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := fmt.Sprintf("q%04d", i)
			if _, err := writer.Create(context.Background(), "ns", name, newPod("ns", name), nil); err != nil {
				t.Error(err)
			}
			if i%3 == 0 {
				if _, err := writer.Delete(context.Background(), "ns", name, nil); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for range 5 {
		c := openStore(t, e, Options{Rev: e.Rev}).Register(podResource)
		l := mustList(t, c, ListOptions{})
		resp, err := e.Client().Get(t.Context(), c.prefix, clientv3.WithPrefix(), clientv3.WithRev(l.Rev))
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Kvs) != len(l.Objects) {
			t.Fatalf("%d objects in the cache, %d in etcd at revision %d", len(l.Objects), len(resp.Kvs), l.Rev)
		}
		for i, kv := range resp.Kvs {
			if o := l.Objects[i]; c.prefix+o.Key != string(kv.Key) || o.Rev != kv.ModRevision {
				t.Fatalf("object %s at %d, etcd has %s at %d", o.Key, o.Rev, kv.Key, kv.ModRevision)
			}
		}
	}
	close(stop)
	<-done
}
