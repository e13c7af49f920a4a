package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// FrontProxyUser is the common name of the API server's certificate towards aggregated API servers.
const FrontProxyUser = "front-proxy-client"

// ServerTLS is the configuration of the API server's listener. Its certificate is issued at the first handshake and again
// when two thirds of its life are over. Clients may show a certificate; authentication decides what it is worth, so
// that a bad one is answered with 401 and not with a broken connection.
func (p *PKI) ServerTLS() *tls.Config {
	c := &renewed{now: p.now, issue: func() (*Certificate, error) {
		return p.Cluster.Issue(Request{
			CommonName: "kube-apiserver",
			DNSNames:   p.dnsNames,
			IPs:        p.ips,
			Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
	}}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert,
		ClientCAs:  p.Cluster.Pool(),
		// An answer is of use as a whole only: small records at the beginning would just be more work.
		DynamicRecordSizingDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.get()
		},
	}
}

// renewed is a certificate that is issued when it is first needed and again when it grows old.
type renewed struct {
	issue func() (*Certificate, error)
	now   func() time.Time

	mu   sync.Mutex
	cert *tls.Certificate
}

func (r *renewed) get() (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cert != nil && !renewalDue(r.cert.Leaf, r.now()) {
		return r.cert, nil
	}
	c, err := r.issue()
	if err != nil {
		return nil, err
	}
	t := c.TLS()
	r.cert = &t
	return r.cert, nil
}

// renewalDue says that less than a third of the certificate's life is left.
func renewalDue(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}

// ClientCert issues a client certificate: user is the common name, groups are the organizations.
func (p *PKI) ClientCert(user string, groups []string) (*Certificate, error) {
	return p.Cluster.Issue(Request{
		CommonName:    user,
		Organizations: groups,
		Usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// NodeClientCert issues the certificate by which the kubelet of a node talks to the API server.
func (p *PKI) NodeClientCert(node string) (*Certificate, error) {
	return p.ClientCert("system:node:"+node, []string{"system:nodes"})
}

// NodeServingCert issues the certificate of the kubelet's own server, as the signer kubernetes.io/kubelet-serving would.
func (p *PKI) NodeServingCert(node string, ips []net.IP) (*Certificate, error) {
	return p.Cluster.Issue(Request{
		CommonName:    "system:node:" + node,
		Organizations: []string{"system:nodes"},
		DNSNames:      []string{node},
		IPs:           ips,
		Usages:        []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// FrontProxyClientCert issues the certificate by which the API server vouches for users towards aggregated API servers.
func (p *PKI) FrontProxyClientCert() (*Certificate, error) {
	return p.FrontProxy.Issue(Request{CommonName: FrontProxyUser, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// ClientTLS is the configuration of a client inside the cluster, that trusts the cluster's authority and shows a certificate
// of the given identity, renewed as the server's is.
func (p *PKI) ClientTLS(user string, groups []string) *tls.Config {
	c := &renewed{now: p.now, issue: func() (*Certificate, error) { return p.ClientCert(user, groups) }}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    p.Cluster.Pool(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.get()
		},
	}
}

// Kubeconfig makes a kubeconfig with a new client certificate of the given identity. Server is the URL of the API server;
// cluster names the cluster and the context in it.
func (p *PKI) Kubeconfig(cluster, server, user string, groups []string) ([]byte, error) {
	c, err := p.ClientCert(user, groups)
	if err != nil {
		return nil, err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[cluster] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: p.CAPEM()}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertPEM, ClientKeyData: c.KeyPEM}
	config.Contexts[cluster] = &clientcmdapi.Context{Cluster: cluster, AuthInfo: user}
	config.CurrentContext = cluster
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("writing the kubeconfig of %s: %w", user, err)
	}
	return data, nil
}
