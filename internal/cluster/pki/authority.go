package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/cert"
)

// Authority is a certificate authority. It is safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	pem  []byte
	key  crypto.Signer
	pool *x509.CertPool
	now  func() time.Time
}

// Request says what a certificate is for.
type Request struct {
	CommonName    string
	Organizations []string
	DNSNames      []string
	IPs           []net.IP
	Usages        []x509.ExtKeyUsage
	// Life is how long the certificate is valid; a year when zero. It never outlives the authority.
	Life time.Duration
}

// Certificate is an issued certificate with its private key, both in PEM.
type Certificate struct {
	CertPEM, KeyPEM []byte
	Leaf            *x509.Certificate
	Key             *ecdsa.PrivateKey
}

// TLS gives the certificate in the form that crypto/tls takes.
func (c *Certificate) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.Leaf.Raw}, PrivateKey: c.Key, Leaf: c.Leaf}
}

func newAuthority(certPEM []byte, key crypto.Signer, now func() time.Time) (*Authority, error) {
	certs, err := cert.ParseCertsPEM(certPEM)
	if err != nil {
		return nil, err
	}
	c := certs[0]
	if !c.IsCA {
		return nil, errors.New("the certificate is not one of an authority")
	}
	if pub, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("the certificate does not belong to the key beside it")
	}
	if now().After(c.NotAfter) {
		return nil, fmt.Errorf("the certificate expired on %s: renew it with the same key", c.NotAfter.Format(time.RFC3339))
	}
	a := &Authority{cert: c, pem: certPEM, key: key, pool: x509.NewCertPool(), now: now}
	for _, c := range certs { // more than one while an authority is replaced
		a.pool.AddCert(c)
	}
	return a, nil
}

// selfSign makes the certificate of an authority.
func selfSign(key crypto.Signer, commonName string, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		DNSNames:              []string{commonName},
		NotBefore:             notBefore(now),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return encodeCertificate(der), nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return a.pem }

// Certificate is the authority's parsed certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Pool holds the authority's certificate.
func (a *Authority) Pool() *x509.CertPool { return a.pool }

// Issue makes a key (ECDSA P-256) and a certificate for it.
func (a *Authority) Issue(r Request) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certPEM, leaf, err := a.Sign(r, key.Public())
	if err != nil {
		return nil, err
	}
	keyPEM, err := privatePEM(key)
	if err != nil {
		return nil, err
	}
	return &Certificate{CertPEM: certPEM, KeyPEM: keyPEM, Leaf: leaf, Key: key}, nil
}

// Sign makes a certificate for a key that somebody else holds.
func (a *Authority) Sign(r Request, pub crypto.PublicKey) ([]byte, *x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	if r.Life == 0 {
		r.Life = leafLife
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: r.CommonName, Organization: r.Organizations},
		DNSNames:              r.DNSNames,
		IPAddresses:           r.IPs,
		NotBefore:             notBefore(now),
		NotAfter:              now.Add(r.Life),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           r.Usages,
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if template.NotBefore.Before(a.cert.NotBefore) {
		template.NotBefore = a.cert.NotBefore
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing the certificate of %q: %w", r.CommonName, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	return encodeCertificate(der), leaf, nil
}

// notBefore leaves room for clocks that are behind.
func notBefore(now time.Time) time.Time { return now.Add(-5 * time.Minute) }

func newSerial() (*big.Int, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 127)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: der})
}

// checkDNSName accepts DNS names and wildcards.
func checkDNSName(name string) error {
	check := validation.IsDNS1123Subdomain
	if strings.HasPrefix(name, "*.") {
		check = validation.IsWildcardDNS1123Subdomain
	}
	if msgs := check(name); len(msgs) > 0 {
		return fmt.Errorf("%q can't be a name in a certificate: %s", name, strings.Join(msgs, "; "))
	}
	return nil
}
