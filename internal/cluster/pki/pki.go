// Package pki holds the keys and certificates by which the parts of a cluster trust each other.
//
// What flows in is a directory and the names and addresses under which the API server is reached. What flows out are TLS
// configurations, client certificates, kubeconfigs and the key pair that signs service account tokens. Only what other
// machines or a later start rely on is kept in files, by kubeadm's names: the authority of the cluster (ca.crt, ca.key), that
// of the front proxy (front-proxy-ca.crt, front-proxy-ca.key) and the service account keys (sa.key, sa.pub). Every other
// certificate is issued in memory when it is asked for, and again before it expires, so there is nothing to rotate on disk.
package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Lifetimes of what is issued.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
)

// Options say how the API server is reached.
type Options struct {
	// ClusterDomain is the DNS domain of services; "cluster.local" when empty.
	ClusterDomain string
	// ServiceIPs are the addresses of the Service "kubernetes".
	ServiceIPs []net.IP
	// NodeIPs are the addresses of this machine.
	NodeIPs []net.IP
	// Hostname is the name of this machine; os.Hostname when empty.
	Hostname string
	// ExtraSANs are further names or addresses in the serving certificate.
	ExtraSANs []string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// PKI is the key material of one cluster. It is safe for concurrent use.
type PKI struct {
	// Cluster signs the certificates of servers and clients, FrontProxy those of proxies that may name a user in headers.
	Cluster, FrontProxy *Authority

	serviceAccountKey *ecdsa.PrivateKey
	dnsNames          []string
	ips               []net.IP
	now               func() time.Time
}

// Load reads the authorities and keys in dir (made with mode 0700 when missing) and makes those that are missing. It may be
// interrupted at any point and run again, also by several processes at once: a file appears whole or not at all, and never
// changes once it is there.
func Load(dir string, o Options) (*PKI, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of certificates: %w", err)
	}
	p := &PKI{now: o.Now}
	var err error
	if p.dnsNames, p.ips, err = subjectAlternativeNames(o); err != nil {
		return nil, err
	}
	var g errgroup.Group // each part waits for its own files to reach the disk
	g.Go(func() (err error) {
		p.Cluster, err = loadAuthority(dir, "ca", "kubernetes", o.Now)
		return err
	})
	g.Go(func() (err error) {
		p.FrontProxy, err = loadAuthority(dir, "front-proxy-ca", "front-proxy-ca", o.Now)
		return err
	})
	g.Go(func() (err error) {
		p.serviceAccountKey, err = loadServiceAccountKey(dir)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	return p, nil
}

func loadAuthority(dir, file, commonName string, now func() time.Time) (*Authority, error) {
	keyFile, certFile := filepath.Join(dir, file+".key"), filepath.Join(dir, file+".crt")
	// The key is written before the certificate, here and by others at the same time: whoever sees a certificate, and then no key,
	// knows that the key was taken away.
	if _, err := os.Stat(certFile); err == nil {
		if _, err := os.Stat(keyFile); os.IsNotExist(err) {
			return nil, fmt.Errorf("%s is there, but its key %s is missing: put the key back, or remove both to start with a new authority", certFile, keyFile)
		}
	}
	keyPEM, err := readOrMake(keyFile, 0o600, newKeyPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", keyFile, err)
	}
	certPEM, err := readOrMake(certFile, 0o644, func() ([]byte, error) {
		return selfSign(key, commonName, now())
	})
	if err != nil {
		return nil, err
	}
	a, err := newAuthority(certPEM, key, now)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", certFile, err)
	}
	return a, nil
}

func loadServiceAccountKey(dir string) (*ecdsa.PrivateKey, error) {
	file := filepath.Join(dir, "sa.key")
	keyPEM, err := readOrMake(file, 0o600, newKeyPEM)
	if err != nil {
		return nil, err
	}
	signer, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: service account tokens are signed with an ECDSA key, and this is %T", file, signer)
	}
	// For others who check tokens; nothing here reads it.
	if _, err := readOrMake(filepath.Join(dir, "sa.pub"), 0o644, func() ([]byte, error) { return publicPEM(key.Public()) }); err != nil {
		return nil, err
	}
	return key, nil
}

// subjectAlternativeNames are the names and addresses by which clients reach the API server, in a stable order.
func subjectAlternativeNames(o Options) ([]string, []net.IP, error) {
	domain := o.ClusterDomain
	if domain == "" {
		domain = "cluster.local"
	}
	if o.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, nil, fmt.Errorf("asking for the host's name: %w", err)
		}
		o.Hostname = name
	}
	names := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain,
		"localhost", strings.ToLower(o.Hostname),
	}
	ips := slices.Concat([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, o.ServiceIPs, o.NodeIPs)
	for _, san := range o.ExtraSANs {
		if ip := net.ParseIP(san); ip != nil {
			ips = append(ips, ip)
		} else {
			names = append(names, san)
		}
	}
	for _, name := range names {
		if err := checkDNSName(name); err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(names)
	slices.SortFunc(ips, func(a, b net.IP) int { return strings.Compare(string(a.To16()), string(b.To16())) })
	return slices.Compact(names), slices.CompactFunc(ips, net.IP.Equal), nil
}

// CAPEM is the certificate of the cluster's authority: what kubeconfigs and pods (kube-root-ca.crt) trust.
func (p *PKI) CAPEM() []byte { return p.Cluster.PEM() }

// ServiceAccountKey signs service account tokens (ES256).
func (p *PKI) ServiceAccountKey() *ecdsa.PrivateKey { return p.serviceAccountKey }

// ClientCAs is the pool that client certificates are checked against.
func (p *PKI) ClientCAs() *x509.CertPool { return p.Cluster.Pool() }

// FrontProxyCAs is the pool that the certificates of front proxies are checked against.
func (p *PKI) FrontProxyCAs() *x509.CertPool { return p.FrontProxy.Pool() }
