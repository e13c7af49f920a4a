// Package dns runs the cluster's DNS: CoreDNS, in this process.
//
// What flows in are the ConfigMap kube-system/coredns, whose Corefile a user may edit, and, by CoreDNS's own plugin, Services,
// EndpointSlices and Namespaces; what flows out are answers to queries as the DNS specification of Kubernetes (version 1.1.0) has
// them, and the Service kube-dns by which pods find the server.
//
// CoreDNS keeps its plugins, directives and log in global variables, so there can be only one Run at a time in a process.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"

	// The plugins that a Corefile may name.
	_ "github.com/coredns/coredns/plugin/autopath"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
)

// User is who the DNS server is towards the API: the service account of upstream's deployment of CoreDNS.
const User = "system:serviceaccount:" + metav1.NamespaceSystem + ":coredns"

// Names of the objects.
const (
	configMap = "coredns"
	service   = "kube-dns"
	corefile  = "Corefile" // key of the ConfigMap
)

// Config says where the DNS listens and how it reaches the API.
type Config struct {
	Client kubernetes.Interface // may make and watch the objects in kube-system
	// API is the URL of the API server. CertFile, KeyFile and CAFile are the files by which CoreDNS's plugin authenticates as User.
	API                       string
	CertFile, KeyFile, CAFile string

	Address   netip.Addr // where to listen, and what the Service leads to
	Port      int
	ServiceIP netip.Addr // cluster IP of the Service kube-dns
	Domain    string     // "cluster.local"
	// ResolvConf names the servers that other names are asked of. Without any, other names are refused.
	ResolvConf string

	// AfterStart is called each time CoreDNS has been started: its plugin for Kubernetes makes itself klog's logger in the whole
	// process, which whoever routes klog will want to undo. May be nil.
	AfterStart func()

	Log *slog.Logger
}

var running atomic.Bool

// Run makes the objects and serves until ctx ends.
func Run(ctx context.Context, c Config) error {
	if !running.CompareAndSwap(false, true) {
		return errors.New("a DNS server is running in this process already")
	}
	defer running.Store(false)
	caddy.Quiet, dnsserver.Quiet = true, true
	clog.SetOutput(logWriter{c.Log})

	if err := ensureObjects(ctx, c); err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	s := &server{config: c}
	defer s.stop()
	return s.follow(ctx)
}

// server is the running CoreDNS, which is replaced when its configuration changes.
type server struct {
	config   Config
	corefile string
	instance *caddy.Instance
}

// follow takes the Corefile over whenever it changes.
func (s *server) follow(ctx context.Context) error {
	maps := s.config.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	selector := fields.OneTermEqualSelector("metadata.name", configMap).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return maps.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return maps.Watch(ctx, o)
		},
	}
	_, err := toolswatch.UntilWithSync(ctx, lw, &corev1.ConfigMap{}, nil, func(e watch.Event) (bool, error) {
		cm, ok := e.Object.(*corev1.ConfigMap)
		if !ok || e.Type == watch.Deleted {
			return false, nil // the configuration that runs stays
		}
		if err := s.configure(cm.Data[corefile]); err != nil {
			s.config.Log.Error("the Corefile in ConfigMap kube-system/coredns can't be used; the one before stays", "error", err)
		}
		return false, nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// configure starts CoreDNS with a Corefile, or replaces the running one. If that fails, the running one goes on.
func (s *server) configure(text string) error {
	adapted, err := adapt(text, s.config, hasNameserver(s.config.ResolvConf))
	if err != nil {
		return err
	}
	if s.instance != nil && adapted == s.corefile {
		return nil
	}
	input := caddy.CaddyfileInput{Filepath: corefile, Contents: []byte(adapted), ServerTypeName: "dns"}
	var next *caddy.Instance
	if s.instance == nil {
		next, err = caddy.Start(input)
	} else {
		next, err = s.instance.Restart(input)
	}
	if err != nil {
		return err
	}
	s.instance, s.corefile = next, adapted
	if s.config.AfterStart != nil {
		s.config.AfterStart()
	}
	return nil
}

func (s *server) stop() {
	if s.instance == nil {
		return
	}
	for _, err := range s.instance.ShutdownCallbacks() {
		s.config.Log.Warn("stopping DNS", "error", err)
	}
	if err := s.instance.Stop(); err != nil {
		s.config.Log.Warn("stopping DNS", "error", err)
	}
}
