package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// namespace is where all measurements work.
const namespace = "bench"

// bench is what the measurements share: the cluster, which is started when the first of them needs it.
type bench struct {
	options
	cluster *ownCluster // nil when another one is measured
	server  int         // its process, for measurements that make it look unhealthy
	config  *rest.Config
	client  kubernetes.Interface
	padding int // bytes of a bigPod, once known
}

// ownCluster is a cluster of Proa's that was started here.
type ownCluster struct {
	proa string
	name string
	dir  string

	Kubeconfig string `json:"kubeconfig"`
	Phases     []struct {
		Name         string  `json:"name"`
		Milliseconds float64 `json:"milliseconds"`
	} `json:"phases"`
}

// start starts a cluster with empty data. suffix tells clusters of one run apart.
func (o options) start(ctx context.Context, suffix string) (*ownCluster, error) {
	dir, err := os.MkdirTemp("", "proa-bench-")
	if err != nil {
		return nil, err
	}
	c := &ownCluster{proa: o.proa, name: "bench-" + strconv.Itoa(os.Getpid()) + suffix, dir: dir}
	if err := c.up(ctx); err != nil {
		return nil, fmt.Errorf("%w (see %s)", err, dir)
	}
	return c, nil
}

func (c *ownCluster) up(ctx context.Context) error {
	// No name is asked of servers outside.
	resolvConf := filepath.Join(c.dir, "resolv.conf")
	if err := os.WriteFile(resolvConf, nil, 0o644); err != nil {
		return err
	}
	out, err := c.command(ctx, "up", "--json", "--resolv-conf", resolvConf, "--service-node-port-range", "20000-21999")
	if err != nil {
		return err
	}
	return json.Unmarshal(out, c)
}

func (c *ownCluster) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.proa, append(args, "--name", c.name, "--data-dir", c.dir)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("proa %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

func (c *ownCluster) load(ctx context.Context, archive string) error {
	_, err := c.command(ctx, "image", "load", archive)
	return err
}

func (c *ownCluster) down() error {
	_, err := c.command(context.Background(), "down")
	return err
}

// pid is the process of the cluster.
func (c *ownCluster) pid(ctx context.Context) (int, error) {
	out, err := c.command(ctx, "status", "--json")
	if err != nil {
		return 0, err
	}
	var s struct {
		PID int `json:"pid"`
	}
	err = json.Unmarshal(out, &s)
	return s.PID, err
}

// connect makes sure that there is a cluster to measure, with the namespace and the image in place.
func (b *bench) connect(ctx context.Context) error {
	if b.client != nil {
		return nil
	}
	path := b.kubeconfig
	if path == "" {
		c, err := b.start(ctx, "")
		if err != nil {
			return err
		}
		b.cluster = c
		if err := c.load(ctx, b.archive); err != nil {
			return err
		}
		path = c.Kubeconfig
	}
	config, client, err := newClient(path)
	if err != nil {
		return err
	}
	if err := makeNamespace(ctx, client); err != nil {
		return err
	}
	b.config, b.client = config, client
	return nil
}

func newClient(kubeconfig string) (*rest.Config, kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	return config, client, err
}

// makeNamespace makes the namespace, and waits for the service account without which it takes no pod.
func makeNamespace(ctx context.Context, client kubernetes.Interface) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	w, err := client.CoreV1().ServiceAccounts(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	defer w.Stop()
	select {
	case <-w.ResultChan():
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("namespace %s got no service account", namespace)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bench) down() error {
	if b.cluster != nil {
		return b.cluster.down()
	}
	if b.client != nil {
		return b.client.CoreV1().Namespaces().Delete(context.Background(), namespace, metav1.DeleteOptions{})
	}
	return nil
}

// connection is an HTTP client with a connection of its own, as another process would have.
func (b *bench) connection() (*http.Client, error) {
	config := rest.CopyConfig(b.config)
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true, DisableCompression: true}
	wrapped, err := rest.HTTPWrappersForConfig(config, transport)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: wrapped}, nil
}
