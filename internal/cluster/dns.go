package cluster

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"github.com/proa-k8s/proa/internal/network/dns"
)

// startDNS starts the cluster's DNS, which ends with ctx. admin makes its objects.
func (s *server) startDNS(ctx context.Context, group *errgroup.Group, admin kubernetes.Interface) error {
	// CoreDNS's plugin is a client like any other, and takes its credentials from files.
	cert, err := s.pki.ClientCert(dns.User, []string{"system:serviceaccounts", "system:serviceaccounts:" + metav1.NamespaceSystem, user.AllAuthenticated})
	if err != nil {
		return fmt.Errorf("issuing the certificate of the DNS: %w", err)
	}
	config := dns.Config{
		Client: admin, API: s.apiURL(),
		CertFile: filepath.Join(s.Layout.PKIDir(), "coredns.crt"), KeyFile: filepath.Join(s.Layout.PKIDir(), "coredns.key"), CAFile: filepath.Join(s.Layout.PKIDir(), "ca.crt"),
		Address: s.net.nodeIP, Port: s.DNSPort, ServiceIP: s.net.dnsIP, Domain: s.ClusterDomain, ResolvConf: s.Node.ResolvConf,
		AfterStart: func() { routeLogs(s.Log) },
		Log:        s.Log.With("component", "dns"),
	}
	for path, data := range map[string][]byte{config.CertFile: cert.CertPEM, config.KeyFile: cert.KeyPEM} {
		if err := writeFile(path, data); err != nil {
			return fmt.Errorf("writing the certificate of the DNS: %w", err)
		}
	}
	group.Go(func() error { return dns.Run(ctx, config) })
	return nil
}
