package scheduler

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// heldWrite is a write of a pod's status that waits to be let go.
type heldWrite struct {
	pod, message string
	release      func()
}

// held is the transport of a client whose writes are held.
type held chan *heldWrite

func (h held) RoundTrip(r *http.Request) (*http.Response, error) {
	var pod corev1.Pod
	if err := json.NewDecoder(r.Body).Decode(&pod); err != nil {
		return nil, err
	}
	let := make(chan struct{})
	name := path.Base(path.Dir(r.URL.Path)) // of .../NAME/status
	h <- &heldWrite{pod: name, message: pod.Status.Conditions[0].Message, release: func() { close(let) }}
	<-let
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(`{"apiVersion":"v1","kind":"Pod"}`)),
	}, nil
}

func TestStatusesAreWrittenSideBySide(t *testing.T) {
	arrived := make(held)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://test", Transport: arrived, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	s := &Scheduler{Config: Config{Client: client, Log: slog.New(slog.DiscardHandler)}}
	w := newStatusWriter(s)
	put := func(pod, message string) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: "default", UID: types.UID(pod)}}
		w.put(p, notScheduled(p, corev1.PodReasonUnschedulable, message), nil)
	}
	for i := range statusWriters {
		put(fmt.Sprint("p", i), "first")
	}
	all := map[string]*heldWrite{}
	for range statusWriters { // all are on their way before any is done
		write := <-arrived
		all[write.pod] = write
	}
	if len(all) != statusWriters {
		t.Fatalf("%d pods are written", len(all))
	}
	// Another pod gives the writers something to do if they would write p0 twice at a time.
	put("p0", "second")
	put("p0", "third")
	put("other", "first")
	all["p1"].release()
	other := <-arrived
	if other.pod != "other" {
		t.Errorf("%s is written (%s) while it is being written", other.pod, other.message)
	}
	all["p0"].release()
	last := <-arrived
	if last.pod != "p0" || last.message != "third" {
		t.Errorf("after the first write of p0: %s of %s, want the last of p0", last.message, last.pod)
	}
	for i := 2; i < statusWriters; i++ {
		all[fmt.Sprint("p", i)].release()
	}
	other.release()
	last.release()
	var more sync.WaitGroup
	more.Go(func() {
		for write := range arrived {
			t.Errorf("one write too many: %s of %s", write.message, write.pod)
			write.release()
		}
	})
	s.owned.Wait()
	close(arrived)
	more.Wait()
}
