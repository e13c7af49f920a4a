package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// issuer verifies the token of a file as somebody does who knows OIDC discovery only: by the documents of the cluster that
// issued it, which it reads as the pod's service account.
func issuer(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("issuer", flag.ContinueOnError)
	path := flags.String("token-path", "", "file of the token to verify")
	audience := flags.String("audience", "", "audience that the token must have")
	if err := flags.Parse(args); err != nil {
		return err
	}
	raw, err := os.ReadFile(*path)
	if err != nil {
		return err
	}
	client, err := inCluster()
	if err != nil {
		return err
	}
	server := "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	var document struct {
		Issuer     string   `json:"issuer"`
		JWKSURI    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := read(ctx, client, server+"/.well-known/openid-configuration", &document); err != nil {
		return err
	}
	var keys jose.JSONWebKeySet
	if err := read(ctx, client, document.JWKSURI, &keys); err != nil {
		return err
	}
	var algorithms []jose.SignatureAlgorithm
	for _, a := range document.Algorithms {
		algorithms = append(algorithms, jose.SignatureAlgorithm(a))
	}
	token, err := jwt.ParseSigned(strings.TrimSpace(string(raw)), algorithms)
	if err != nil {
		return err
	}
	candidates := keys.Key(token.Headers[0].KeyID)
	if len(candidates) == 0 {
		return fmt.Errorf("no key %q among those of %s", token.Headers[0].KeyID, document.JWKSURI)
	}
	var claims jwt.Claims
	if err := token.Claims(candidates[0].Key, &claims); err != nil {
		return err
	}
	expected := jwt.Expected{Issuer: document.Issuer, AnyAudience: jwt.Audience{*audience}, Time: time.Now()}
	if err := claims.ValidateWithLeeway(expected, 0); err != nil {
		return err
	}
	fmt.Printf("verified the token of %s\n", claims.Subject)
	return nil
}

// inCluster makes a client that trusts what the pod's service account trusts, and is that account.
func inCluster() (*http.Client, error) {
	pem, err := os.ReadFile(account + "/ca.crt")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + account + "/ca.crt")
	}
	token, err := os.ReadFile(account + "/token")
	if err != nil {
		return nil, err
	}
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	return &http.Client{Timeout: timeout, Transport: bearer{base, string(token)}}, nil
}

type bearer struct {
	http.RoundTripper
	token string
}

// RoundTrip adds the token to a copy of the request.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}

func read(ctx context.Context, client *http.Client, url string, into any) error {
	text, err := fetch(ctx, client, url)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}
