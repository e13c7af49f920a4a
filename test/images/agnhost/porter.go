package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// porter serves each port that the environment names (SERVE_PORT_n, SERVE_TLS_PORT_n) with the text that stands there. With
// --json-response it answers with an object that holds the method too.
func porter(ctx context.Context, args []string) error {
	asJSON := len(args) > 0 && args[0] == "--json-response"
	ended := make(chan error, 1)
	for _, variable := range os.Environ() {
		name, text, _ := strings.Cut(variable, "=")
		port, plain := strings.CutPrefix(name, "SERVE_PORT_")
		encrypted := false
		if !plain {
			if port, encrypted = strings.CutPrefix(name, "SERVE_TLS_PORT_"); !encrypted {
				continue
			}
		}
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		defer listener.Close()
		if encrypted {
			cert, err := selfSigned()
			if err != nil {
				return err
			}
			listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}})
		}
		go func() {
			err := http.Serve(listener, door(text, asJSON))
			select {
			case ended <- err:
			default:
			}
		}()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

func door(text string, asJSON bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !asJSON {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, text)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"Method": r.Method, "Body": text, "Path": r.URL.Path, "Query": r.URL.RawQuery})
	})
}

// selfSigned makes a certificate that nobody trusts.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(1, 0, 0), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
