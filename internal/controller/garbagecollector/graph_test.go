package garbagecollector

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func id(namespace, name string) identity {
	return identity{schema.GroupVersionResource{Version: "v1", Resource: "things"}, "Thing", namespace, name, types.UID(name)}
}

func ref(name string, blocking bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Thing", Name: name, UID: types.UID(name), BlockOwnerDeletion: ptr.To(blocking)}
}

func meta(owners ...metav1.OwnerReference) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{OwnerReferences: owners}
}

func deleting(finalizer string, owners ...metav1.OwnerReference) *metav1.ObjectMeta {
	m := meta(owners...)
	m.DeletionTimestamp, m.Finalizers = &metav1.Time{}, []string{finalizer}
	return m
}

func looks(t *testing.T, what string, got []types.UID, want ...types.UID) {
	t.Helper()
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("%s: looks at %v, want %v", what, got, want)
	}
}

func TestGraph(t *testing.T) {
	g := newGraph()
	observe := func(i identity, m *metav1.ObjectMeta) []types.UID { look, _ := g.observed(i, m); return look }
	looks(t, "an owner", observe(id("ns", "owner"), meta()))
	looks(t, "a dependent of a known owner", observe(id("ns", "child"), meta(ref("owner", true))))
	looks(t, "a dependent of an unknown one", observe(id("ns", "stray"), meta(ref("nobody", true))), "stray")
	looks(t, "another state of it", observe(id("ns", "stray"), meta(ref("nobody", true))))
	looks(t, "the unknown one appears", observe(id("ns", "nobody"), meta()))
	looks(t, "the owner begins to wait", observe(id("ns", "owner"), deleting(metav1.FinalizerDeleteDependents)), "child", "owner")
	looks(t, "the child blocks no longer", observe(id("ns", "child"), meta(ref("owner", false))), "owner")
	looks(t, "the child is gone", g.gone("child"), "owner")
	looks(t, "the owner is gone", g.gone("owner"))
	looks(t, "an owner with a dependent is gone", g.gone("nobody"), "stray")
	if _, ok := g.get("stray"); !ok || len(g.nodes) != 2 {
		t.Errorf("there are %d nodes, want the stray and what it refers to", len(g.nodes))
	}
	looks(t, "the stray refers to it no longer", observe(id("ns", "stray"), meta()))
	looks(t, "the stray is gone", g.gone("stray"))
	if len(g.nodes) != 0 {
		t.Errorf("%d nodes are left", len(g.nodes))
	}
	looks(t, "what was never there", g.gone("never"))
}

func TestForeignOwner(t *testing.T) {
	g := newGraph()
	g.observed(id("there", "owner"), meta())
	g.observed(id("", "wide"), meta())
	look, foreign := g.observed(id("here", "child"), meta(ref("owner", false), ref("wide", false)))
	looks(t, "a reference across namespaces", look, "child")
	if len(foreign) != 1 || foreign[0].Name != "owner" {
		t.Errorf("foreign are %v", foreign)
	}
	if there, _ := g.knows(ref("owner", false), "here"); there {
		t.Error("an owner in another namespace counts")
	}
	if there, _ := g.knows(ref("wide", false), "here"); !there {
		t.Error("a cluster-wide owner doesn't count")
	}
	renamed := ref("owner", false)
	renamed.Name = "other"
	if there, _ := g.knows(renamed, "there"); there {
		t.Error("an owner of another name counts")
	}
}

// However objects come, change and go: what the graph knows is what follows from the present objects.
func TestGraphFollows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	g, present := newGraph(), map[string][]string{}
	for range 20000 {
		name := fmt.Sprint(r.IntN(12))
		if r.IntN(3) == 0 {
			g.gone(types.UID(name))
			delete(present, name)
			continue
		}
		var owners []string
		m := meta()
		for range r.IntN(3) {
			if o := fmt.Sprint(r.IntN(12)); !slices.Contains(owners, o) {
				owners = append(owners, o)
				m.OwnerReferences = append(m.OwnerReferences, ref(o, false))
			}
		}
		g.observed(id("ns", name), m)
		present[name] = owners
		referred := map[string]int{}
		for _, owners := range present {
			for _, o := range owners {
				referred[o]++
			}
		}
		for i := range 12 {
			n := fmt.Sprint(i)
			_, there := present[n]
			v, ok := g.get(types.UID(n))
			if ok != (there || referred[n] > 0) || ok && (v.virtual == there || len(v.dependents) != referred[n]) {
				t.Fatalf("%s: known %v (%+v); present %v, referred to by %d", n, ok, v, there, referred[n])
			}
		}
	}
}
