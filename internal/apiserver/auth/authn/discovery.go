package authn

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// The paths of the documents by which others check service account tokens (OpenID Connect Discovery 1.0, section 4).
const (
	ConfigurationPath = "/.well-known/openid-configuration"
	KeysPath          = "/openid/v1/jwks"
)

// Discovery gives the handlers of the two documents, by path. jwksURI is where the keys can be had; empty: below the issuer.
// There are none when the issuer is not an https URL, since nobody could find it.
func (t *Tokens) Discovery(jwksURI string) (map[string]http.Handler, error) {
	u, err := url.Parse(t.issuer)
	if err != nil || u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, nil
	}
	if jwksURI == "" {
		jwksURI = u.JoinPath(KeysPath).String()
	}
	set := jose.JSONWebKeySet{Keys: t.keys}
	var algorithms []string
	for _, k := range t.keys {
		if !slices.Contains(algorithms, k.Algorithm) {
			algorithms = append(algorithms, k.Algorithm)
		}
	}
	configuration, err := json.Marshal(struct {
		Issuer        string   `json:"issuer"`
		JWKSURI       string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{t.issuer, jwksURI, []string{"id_token"}, []string{"public"}, algorithms})
	if err != nil {
		return nil, fmt.Errorf("encoding the OpenID configuration: %w", err)
	}
	keys, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encoding the keys of service account tokens: %w", err)
	}
	return map[string]http.Handler{
		ConfigurationPath: document("application/json", configuration),
		KeysPath:          document("application/jwk-set+json", keys),
	}, nil
}

func document(contentType string, data []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(data)
	})
}
