package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/catalogue"
	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/apiserver/wire"
	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/cluster/pki"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

// shutdownTimeout is how long requests in flight have to end when the server does.
const shutdownTimeout = 2 * time.Second

// server is a running control plane.
type server struct {
	ServerConfig
	notify *notifier
	net    addresses

	pki       *pki.PKI
	etcd      *etcd.Server
	store     *store.Store
	resources []*api.Resource
	registry  *prometheus.Registry
	auth      *auth
	api       *apiserver.Server
	informers informers.SharedInformerFactory
	serves    chan struct{} // closed when the API serves and the objects are there that a cluster begins with
	closers   []func()      // in the order of opening
}

// RunServer runs the control plane, and a node unless it is disabled, until ctx ends or a part of it fails.
func RunServer(ctx context.Context, c ServerConfig) (err error) {
	notify := newNotifier()
	lock, err := claim(c.Layout)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := c.complete(); err != nil {
		return err
	}
	restoreLogs := routeLogs(c.Log)
	defer restoreLogs()

	s := &server{ServerConfig: c, notify: notify, resources: catalogue.Builtin(), registry: newRegistry(), serves: make(chan struct{})}
	if s.net, err = c.addresses(); err != nil {
		return err
	}
	defer func() { s.close() }()

	// What runs for long belongs to the group; a part that fails ends all others.
	asked := ctx
	group, ctx := errgroup.WithContext(ctx)
	if !c.DisableAgent {
		group.Go(func() error { return s.runNode(ctx) })
	}
	group.Go(func() error { return s.runControlPlane(ctx, group) })
	group.Go(func() error { return trimWhenSettled(ctx, c.Log) })
	group.Go(func() error { return keepSmall(ctx, c.Log) })
	err = group.Wait()
	if asked.Err() != nil {
		return nil // it was asked to end: what that interrupted is no error
	}
	return err
}

// runControlPlane starts the parts in the order in which they need each other, and serves until ctx ends.
func (s *server) runControlPlane(ctx context.Context, group *errgroup.Group) error {
	if err := s.openStore(ctx); err != nil {
		return err
	}
	if err := s.makeAPI(ctx, group); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(s.BindAddress, strconv.Itoa(s.SecurePort)))
	if err != nil {
		return fmt.Errorf("listening for the API: %w (choose another port with --secure-port)", err)
	}
	httpServer := &http.Server{
		Handler:           s.api,
		TLSConfig:         s.pki.ServerTLS(),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       3 * time.Minute,
		ErrorLog:          slog.NewLogLogger(handshakeErrors{s.Log.Handler()}, slog.LevelDebug),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000},
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error {
		if err := wire.Serve(httpServer, listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving the API: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return shutdown(httpServer)
	})
	return s.begin(ctx, group)
}

// shutdown ends an HTTP server: requests have a moment to end, connections that are left are cut.
func shutdown(s *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if s.Shutdown(ctx) == nil {
		return nil
	}
	return s.Close()
}

// openStore starts etcd and opens the store, while the keys are loaded.
func (s *server) openStore(ctx context.Context) error {
	var loading errgroup.Group
	loading.Go(func() (err error) {
		if s.pki, err = pki.Load(s.Layout.PKIDir(), s.pkiOptions()); err != nil {
			return fmt.Errorf("loading keys and certificates: %w", err)
		}
		return nil
	})
	var err error
	s.etcd, err = etcd.Start(ctx, etcd.Config{
		Dir:       s.Layout.EtcdDir(),
		Logger:    s.Log.With("component", "etcd"),
		Endpoints: s.EtcdEndpoints,
		CAFile:    s.EtcdCAFile, CertFile: s.EtcdCertFile, KeyFile: s.EtcdKeyFile,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("starting etcd: %w", err), loading.Wait())
	}
	s.closers = append(s.closers, func() { logError(s.Log, "closing etcd", s.etcd.Close()) })
	s.store, err = store.Open(ctx, s.etcd.Client(), store.Options{Logger: s.Log.With("component", "store"), Registerer: s.registry, Rev: s.etcd.Rev})
	if err != nil {
		return errors.Join(fmt.Errorf("opening the store: %w", err), loading.Wait())
	}
	s.closers = append(s.closers, s.store.Close)
	apiserver.RegisterCaches(s.store, s.resources)
	return loading.Wait()
}

// close closes what was opened, the last first.
func (s *server) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// begin makes what a cluster begins with, and starts everything that works through the API.
func (s *server) begin(ctx context.Context, group *errgroup.Group) error {
	admin := kubernetes.NewForConfigOrDie(s.rest(&user.DefaultInfo{Name: "system:apiserver", Groups: []string{user.SystemPrivilegedGroup}}))
	s.informers = client.Informers(admin, s.store, s.resources)
	if err := errors.Join(s.writeKubeconfig(), s.facts().write(s.Layout.DataDir)); err != nil {
		return err
	}
	s.Log.Info("the API serves", "port", s.SecurePort, "after", s.notify.phase("API serves"))
	if err := s.bootstrap(ctx, admin); err != nil {
		return err
	}
	if err := s.startControllers(ctx, group); err != nil {
		return err
	}
	if err := s.startScheduler(ctx, group); err != nil {
		return err
	}
	if err := s.startDNS(ctx, group, admin); err != nil {
		return err
	}
	close(s.serves)
	if s.DisableAgent {
		s.notify.ready()
	}
	return nil
}

// rest is the configuration of a client inside the process.
func (s *server) rest(identity user.Info) *rest.Config { return client.NewConfig(s.api, identity) }

// apiURL is where the API is reached from this machine.
func (s *server) apiURL() string {
	host := s.BindAddress
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(s.SecurePort))
}

// writeKubeconfig writes the administrator's kubeconfig, readable by its owner only.
func (s *server) writeKubeconfig() error {
	data, err := s.pki.Kubeconfig(s.Layout.Name, s.apiURL(), "kubernetes-admin", []string{user.SystemPrivilegedGroup})
	if err != nil {
		return fmt.Errorf("making the administrator's kubeconfig: %w", err)
	}
	return writeFile(s.Layout.AdminKubeconfig(), data)
}

// writeFile writes a file that is there as a whole or not at all, for its owner's eyes only.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it is renamed
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (s *server) pkiOptions() pki.Options {
	o := pki.Options{ClusterDomain: s.ClusterDomain, ExtraSANs: s.TLSSANs}
	for _, ip := range []netip.Addr{s.net.kubernetesIP} {
		o.ServiceIPs = append(o.ServiceIPs, ip.AsSlice())
	}
	for _, ip := range []netip.Addr{s.net.nodeIP, s.net.advertise} {
		o.NodeIPs = append(o.NodeIPs, ip.AsSlice())
	}
	return o
}

// addresses are the addresses of a cluster, parsed and derived.
type addresses struct {
	nodeIP, advertise        netip.Addr
	clusterCIDR, serviceCIDR netip.Prefix
	kubernetesIP             netip.Addr // of the Service "kubernetes": the first of the range
	dnsIP                    netip.Addr // of the Service "kube-dns": the tenth
}

func (c *ServerConfig) addresses() (addresses, error) {
	var a addresses
	var errs [4]error
	a.nodeIP, errs[0] = netip.ParseAddr(c.Node.IP)
	a.advertise, errs[1] = netip.ParseAddr(c.AdvertiseAddress)
	a.clusterCIDR, errs[2] = netip.ParsePrefix(c.ClusterCIDR)
	a.serviceCIDR, errs[3] = netip.ParsePrefix(c.ServiceCIDR)
	if err := errors.Join(errs[:]...); err != nil {
		return a, err
	}
	a.kubernetesIP, a.dnsIP = nth(a.serviceCIDR, 1), nth(a.serviceCIDR, 10)
	return a, nil
}

// nth is the n-th address of a range after its first.
func nth(p netip.Prefix, n int) netip.Addr {
	addr := p.Addr()
	for range n {
		addr = addr.Next()
	}
	return addr
}

func logError(log *slog.Logger, what string, err error) {
	if err != nil {
		log.Error(what, "error", err)
	}
}
