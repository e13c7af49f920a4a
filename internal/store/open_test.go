package store

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// TestCloseLeavesNothing closes a store in the middle of its work.
func TestCloseLeavesNothing(t *testing.T) {
	e := testEtcd(t)
	before := goleak.IgnoreCurrent()
	registry := prometheus.NewRegistry()
	for _, o := range []Options{{Rev: e.Rev, Registerer: registry}, {Registerer: registry}} {
		s, err := Open(t.Context(), e.Client(), o)
		if err != nil {
			t.Fatal(err)
		}
		c := s.Register(podResource)
		w, err := c.Watch(t.Context(), WatchOptions{Rev: -1, Bookmarks: true})
		if err != nil {
			t.Fatal(err)
		}
		o := mustCreate(t, c, newPod("ns", "a"))
		if _, err := o.Encoding(EncodingKey{}, func() ([]byte, error) { return []byte("x"), nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Gather(); err != nil {
			t.Error(err)
		}
		mustDelete(t, c, "ns", "a")
		next(t, w, 2)
		s.Close()
		s.Close()
		_, err = w.Next(t.Context())
		wantErr(t, err, ErrStopped)
		_, err = s.Register(nodeResource).Get(t.Context(), "", "n", 0)
		wantErr(t, err, ErrStopped)
	}
	goleak.VerifyNone(t, before)
}

// TestMetrics checks that the values are those of the store, and the names those that dashboards look for.
func TestMetrics(t *testing.T) {
	e := testEtcd(t)
	registry := prometheus.NewPedanticRegistry()
	s := openStore(t, e, Options{Rev: e.Rev, Registerer: registry})
	c := s.Register(podResource)
	w := startWatch(t, c, WatchOptions{Rev: -1})
	mustCreate(t, c, newPod("ns", "a"))
	mustCreate(t, c, newPod("ns", "b"))
	next(t, w, 2)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got, labels := map[string]float64{}, map[string]string{}
	for _, f := range families {
		for _, m := range f.Metric {
			labels[f.GetName()] = ""
			for _, l := range m.Label {
				labels[f.GetName()] += l.GetName() + " "
			}
			switch {
			case m.Gauge != nil:
				got[f.GetName()] = m.Gauge.GetValue()
			case m.Counter != nil:
				got[f.GetName()] += m.Counter.GetValue()
			case m.Histogram != nil:
				got[f.GetName()] += float64(m.Histogram.GetSampleCount())
			}
		}
	}
	for name, want := range map[string]float64{
		"apiserver_resource_objects": 2, "apiserver_storage_objects": 2, "apiserver_watch_cache_watchers": 1,
		"apiserver_watch_cache_events_received_total": 2, "apiserver_terminated_watchers_total": 0,
		"apiserver_watch_cache_resource_version": float64(s.fed.Load()),
		"etcd_requests_total":                    3, "etcd_request_duration_seconds": 3, // the filling and two writes
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	for name, want := range map[string]string{
		"apiserver_resource_objects": "group resource ", "apiserver_storage_objects": "resource ", "apiserver_watch_cache_watchers": "group resource ",
		"apiserver_watch_cache_events_received_total": "group resource ", "apiserver_storage_events_received_total": "group resource ",
		"apiserver_terminated_watchers_total": "group resource ", "apiserver_watch_cache_resource_version": "group resource ",
		"apiserver_storage_size_bytes": "storage_cluster_id ", "etcd_requests_total": "group operation resource ",
		"etcd_request_duration_seconds": "group operation resource ",
	} {
		if labels[name] != want {
			t.Errorf("%s has the labels %s, want %s", name, labels[name], want)
		}
	}
	if got["apiserver_storage_size_bytes"] <= 0 {
		t.Error("etcd's file has no size")
	}
	if _, err := Open(t.Context(), e.Client(), Options{Registerer: registry}); err == nil {
		t.Error("two stores have the same metrics")
	}
}
