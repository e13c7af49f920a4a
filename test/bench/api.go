package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	jsonType     = "application/json"
	protobufType = "application/vnd.kubernetes.protobuf"
	// waitingScheduler is nobody: pods that name it stay as they are.
	waitingScheduler = "bench-nobody"
)

// request does one request, reads all of the answer, and says how many bytes it had.
func request(ctx context.Context, client *http.Client, method, url, accept string, body []byte) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", accept)
	if body != nil {
		req.Header.Set("Content-Type", jsonType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return 0, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	buf := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, *buf)
}

// readBuffers are for reading answers in large pieces, as clients do that read them as a whole. io.Discard's own 8 KB would make
// the client acknowledge every 8 KB, which is half of the work of reading a list.
var readBuffers = sync.Pool{New: func() any { return ptr.To(make([]byte, 64<<10)) }}

func (b *bench) podsURL() string {
	return strings.TrimSuffix(b.config.Host, "/") + "/api/v1/namespaces/" + namespace + "/pods"
}

// listedBytes is the size of a pod's JSON as the server lists it: 30,000 of them are 120 MB.
const listedBytes = 4000

// bigPod is a pod of listedBytes that no scheduler takes.
func (b *bench) bigPod(name string, labels map[string]string) ([]byte, error) {
	pod := b.pod(name)
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	pod.Labels = labels
	pod.Spec.SchedulerName = waitingScheduler
	pod.Annotations = map[string]string{"bench/padding": strings.Repeat("x", b.padding)}
	return json.Marshal(pod)
}

// pad finds out how much a pod has to be padded with: what a server adds to it, by defaults and managed fields, counts.
func (b *bench) pad(ctx context.Context) error {
	if b.padding > 0 {
		return nil
	}
	body, err := b.bigPod("list-12345", map[string]string{"app": "list", "part": "12"})
	if err != nil {
		return err
	}
	client, err := b.connection()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	n, err := request(ctx, client, http.MethodPost, b.podsURL()+"?dryRun=All", jsonType, body)
	if err != nil {
		return fmt.Errorf("asking how large a pod becomes: %w", err)
	}
	b.padding = max(0, listedBytes-int(n))
	return nil
}

// createPods creates n pods over one connection for each client, and returns how long each took and all together.
func (b *bench) createPods(ctx context.Context, prefix string, n, clients int, label func(i int) map[string]string) (each []time.Duration, all time.Duration, err error) {
	if err := b.pad(ctx); err != nil {
		return nil, 0, err
	}
	each = make([]time.Duration, n)
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for range clients {
		client, err := b.connection()
		if err != nil {
			return nil, 0, err
		}
		group.Go(func() error {
			defer client.CloseIdleConnections()
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				body, err := b.bigPod(fmt.Sprintf("%s-%d", prefix, i), label(i))
				if err != nil {
					return err
				}
				at := time.Now()
				if _, err := request(ctx, client, http.MethodPost, b.podsURL(), jsonType, body); err != nil {
					return err
				}
				each[i] = time.Since(at)
			}
		})
	}
	err = group.Wait()
	return each, time.Since(began), err
}

// measureCreate creates pods with one client and with many.
func measureCreate(ctx context.Context, b *bench) ([]row, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	label := func(int) map[string]string { return map[string]string{"app": "create"} }
	one, _, err := b.createPods(ctx, "create-one", 500, 1, label)
	if err != nil {
		return nil, err
	}
	const many = 10000
	_, took, err := b.createPods(ctx, "create-many", many, 64, label)
	if err != nil {
		return nil, err
	}
	rows := []row{
		percentiles("create pods (4 KB JSON), 1 client", one),
		{Name: "create pods (4 KB JSON), 64 clients", Unit: "1/s", Values: []float64{many / took.Seconds()}},
	}
	return rows, b.deleteWaiting(ctx, "app=create")
}

// deleteWaiting deletes pods that were never scheduled, which are gone at once.
func (b *bench) deleteWaiting(ctx context.Context, selector string) error {
	return b.client.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, metav1.ListOptions{LabelSelector: selector})
}

// measureList lists many pods, and says what they cost in memory.
func measureList(ctx context.Context, b *bench) ([]row, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	before, err := b.memory(ctx)
	if err != nil {
		return nil, err
	}
	_, _, err = b.createPods(ctx, "list", b.pods, 64, func(i int) map[string]string {
		return map[string]string{"app": "list", "part": fmt.Sprint(i % 100)}
	})
	if err != nil {
		return nil, err
	}
	with, err := b.memory(ctx)
	if err != nil {
		return nil, err
	}
	whole := fmt.Sprintf("LIST %d pods whole, ", b.pods)
	var rows []row
	for _, l := range []struct{ name, accept, query string }{
		{whole + "JSON", jsonType, ""},
		{whole + "protobuf", protobufType, ""},
		{fmt.Sprintf("LIST by label, %d of %d pods, protobuf", b.pods/100, b.pods), protobufType, "?labelSelector=part%3D7"},
	} {
		r, err := b.timeList(ctx, l.name, l.accept, l.query)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	if err := b.deleteWaiting(ctx, "app=list"); err != nil {
		return rows, err
	}
	if before.pss == 0 {
		return rows, nil
	}
	after, err := b.memory(ctx)
	return append(rows,
		row{Name: fmt.Sprintf("memory that %d such pods add", b.pods), Unit: "MB", Values: []float64{with.pss - before.pss}},
		row{Name: "memory after deleting them, over idle", Unit: "MB", Values: []float64{after.pss - before.pss}},
	), err
}

func (b *bench) timeList(ctx context.Context, name, accept, query string) (row, error) {
	client, err := b.connection()
	if err != nil {
		return row{}, err
	}
	defer client.CloseIdleConnections()
	var took []time.Duration
	var n int64
	for range 9 {
		at := time.Now()
		n, err = request(ctx, client, http.MethodGet, b.podsURL()+query, accept, nil)
		if err != nil {
			return row{}, err
		}
		if n < 1000 {
			return row{}, fmt.Errorf("%s: the answer has %d bytes only", name, n)
		}
		took = append(took, time.Since(at))
	}
	return percentiles(fmt.Sprintf("%s (%.1f MB)", name, float64(n)/1e6), took), nil
}

// measureWatch updates an object that many clients watch.
func measureWatch(ctx context.Context, b *bench) ([]row, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	maps := b.client.CoreV1().ConfigMaps(namespace)
	cm, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "watched"}, Data: map[string]string{"x": strings.Repeat("x", 1000)}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("%s/api/v1/namespaces/%s/configmaps?watch=1&resourceVersion=%s", strings.TrimSuffix(b.config.Host, "/"), namespace, cm.ResourceVersion)
	seen := make(chan struct{}, b.watchers)
	var group errgroup.Group
	const perConnection = 100 // as many streams as HTTP/2 servers allow
	var client *http.Client
	for i := range b.watchers {
		if i%perConnection == 0 {
			if client, err = b.connection(); err != nil {
				return nil, err
			}
			defer client.CloseIdleConnections()
		}
		started := make(chan error, 1)
		group.Go(func() error { return watchLines(ctx, client, url, started, seen) })
		if err := <-started; err != nil {
			return nil, err
		}
	}
	var took []time.Duration
	for i := range 50 {
		cm.Data["round"] = fmt.Sprint(i)
		at := time.Now()
		if cm, err = maps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
		for range b.watchers {
			select {
			case <-seen:
			case <-time.After(eventually):
				return nil, fmt.Errorf("not every watcher has seen update %d", i)
			}
		}
		took = append(took, time.Since(at))
	}
	cancel()
	_ = group.Wait() // every watch ends with the context
	return []row{percentiles(fmt.Sprintf("update → last of %d watchers has it", b.watchers), took)}, nil
}

// watchLines reports each event of a watch, without decoding it: the client shares the machine with the server.
func watchLines(ctx context.Context, client *http.Client, url string, started chan<- error, seen chan<- struct{}) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		started <- err
		return err
	}
	resp, err := client.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("watch: %s", resp.Status)
	}
	started <- err
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := resp.Body.Read(buf)
		for range bytes.Count(buf[:n], []byte("\n")) {
			seen <- struct{}{}
		}
		if err != nil {
			return err
		}
	}
}
