package store

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestEncodingIsSharedAndCools(t *testing.T) {
	s := testStore(t)
	c := s.Register(podResource)
	o := mustCreate(t, c, newPod("ns", "a"))
	var made atomic.Int32
	encode := func(text string) func() ([]byte, error) {
		return func() ([]byte, error) {
			made.Add(1)
			_, err := o.Decoded() // an encoding is made of this: it must not deadlock
			return []byte(text), err
		}
	}
	jsonKey, yamlKey := EncodingKey{"v1", "json"}, EncodingKey{"v1", "yaml"}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := o.Encoding(jsonKey, encode("json")); string(got) != "json" || err != nil {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
	wg.Wait()
	if got, _ := o.Encoding(yamlKey, encode("yaml")); string(got) != "yaml" || made.Load() != 2 {
		t.Errorf("got %s, made %d", got, made.Load())
	}
	if n := s.warm.size.Load(); n != 8 {
		t.Errorf("%d bytes are held", n)
	}
	s.warm.cool() // used in this round: it stays
	o.Encoding(jsonKey, encode("json"))
	s.warm.cool()
	if made.Load() != 2 {
		t.Error("an encoding in use was dropped")
	}
	s.warm.cool()
	if n := s.warm.size.Load(); n != 0 || len(s.warm.objects) != 0 || o.encodings != nil {
		t.Errorf("%d bytes are held when cold", n)
	}
	o.Encoding(jsonKey, encode("json"))
	if made.Load() != 3 {
		t.Errorf("made %d times", made.Load())
	}
	failing := errors.New("no such version")
	if _, err := o.Encoding(EncodingKey{"v2", "json"}, func() ([]byte, error) { return nil, failing }); !errors.Is(err, failing) {
		t.Errorf("error is %v", err)
	}
}

func TestEncodingsHaveALimit(t *testing.T) {
	s := testStore(t)
	c := s.Register(podResource)
	a, b := mustCreate(t, c, newPod("ns", "a")), mustCreate(t, c, newPod("ns", "b"))
	key := EncodingKey{"v1", "json"}
	a.Encoding(key, func() ([]byte, error) { return make([]byte, maxWarm), nil })
	for range 2 {
		if got, err := b.Encoding(key, func() ([]byte, error) { return []byte("b"), nil }); string(got) != "b" || err != nil {
			t.Errorf("got %s, %v", got, err)
		}
	}
	if b.encodings != nil {
		t.Error("an encoding is held beyond the limit")
	}
}

// TestDecodedIsNotHeld checks that a decoded object is shared as long as somebody holds it, and no longer.
func TestDecodedIsNotHeld(t *testing.T) {
	s := testStore(t)
	c := s.Register(podResource)
	o := mustCreate(t, c, fullPod())
	held, err := o.Decoded()
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	again, err := o.Decoded()
	if err != nil || again != held {
		t.Fatalf("decoded anew while held: %v", err)
	}
	runtime.KeepAlive(held)
	held, again = nil, nil
	runtime.GC()
	runtime.GC()
	if p := o.decoded.Value(); p != nil {
		t.Error("the decoded object is held by the store")
	}
	obj, err := o.Decoded()
	if err != nil {
		t.Fatal(err)
	}
	if p := obj.(*corev1.Pod); p.Name != "a" || p.ResourceVersion != fmt.Sprint(o.Rev) || p.Status.Phase != corev1.PodRunning {
		t.Errorf("decoded is %v", p)
	}
}
