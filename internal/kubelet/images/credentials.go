package images

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// entry is what a docker configuration file says about one registry.
type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// Credentials are those of the secrets that are for the registry of the image, the most specific first.
func Credentials(image string, secrets []*corev1.Secret) ([]*runtimeapi.AuthConfig, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, err
	}
	repository := reference.Domain(named) + "/" + reference.Path(named)
	type match struct {
		key  string
		auth *runtimeapi.AuthConfig
	}
	var matches []match
	for _, s := range secrets {
		entries, err := parseSecret(s)
		if err != nil {
			return nil, fmt.Errorf("secret %s/%s: %w", s.Namespace, s.Name, err)
		}
		for key, e := range entries {
			if !matchesRegistry(key, repository) {
				continue
			}
			auth, err := e.config()
			if err != nil {
				return nil, fmt.Errorf("secret %s/%s: registry %s: %w", s.Namespace, s.Name, key, err)
			}
			matches = append(matches, match{trimKey(key), auth})
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return strings.Compare(b.key, a.key) })
	var list []*runtimeapi.AuthConfig
	for _, m := range matches {
		list = append(list, m.auth)
	}
	return list, nil
}

func parseSecret(s *corev1.Secret) (map[string]entry, error) {
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]entry `json:"auths"`
		}
		if err := json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &file); err != nil {
			return nil, fmt.Errorf("reading %s: %w", corev1.DockerConfigJsonKey, errNotJSON)
		}
		return file.Auths, nil
	case corev1.SecretTypeDockercfg:
		var entries map[string]entry
		if err := json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries); err != nil {
			return nil, fmt.Errorf("reading %s: %w", corev1.DockerConfigKey, errNotJSON)
		}
		return entries, nil
	}
	return nil, nil
}

// errNotJSON stands for the decoder's errors, which show parts of the secret.
var errNotJSON = errors.New("it is no valid JSON of the expected form")

func (e entry) config() (*runtimeapi.AuthConfig, error) {
	auth := &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		text, err := base64.StdEncoding.DecodeString(e.Auth)
		if err != nil {
			if text, err = base64.RawStdEncoding.DecodeString(e.Auth); err != nil {
				return nil, fmt.Errorf("the field auth is not valid base64")
			}
		}
		user, password, ok := strings.Cut(string(text), ":")
		if !ok {
			return nil, fmt.Errorf("the field auth is not of the form user:password")
		}
		auth.Username, auth.Password = user, password
	}
	return auth, nil
}

// trimKey takes a registry's key to the form host/path.
func trimKey(key string) string {
	for _, scheme := range []string{"https://", "http://"} {
		key = strings.TrimPrefix(key, scheme)
	}
	key = strings.TrimSuffix(key, "/")
	for _, version := range []string{"/v1", "/v2"} {
		key = strings.TrimSuffix(key, version)
	}
	if key == "index.docker.io" || key == "registry-1.docker.io" {
		key = "docker.io"
	}
	return key
}

// matchesRegistry reports whether a key is for the repository. Each part of the key's host may hold wildcards, which do
// not span dots; its path is a prefix.
func matchesRegistry(key, repository string) bool {
	key = trimKey(key)
	keyHost, keyPath, _ := strings.Cut(key, "/")
	host, rest, _ := strings.Cut(repository, "/")
	if keyPath != "" && rest != keyPath && !strings.HasPrefix(rest, keyPath) {
		return false
	}
	keyName, keyPort := splitPort(keyHost)
	name, port := splitPort(host)
	if keyPort != port {
		return false
	}
	keyParts, parts := strings.Split(keyName, "."), strings.Split(name, ".")
	if len(keyParts) != len(parts) {
		return false
	}
	for i := range parts {
		if ok, err := path.Match(keyParts[i], parts[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitPort(host string) (name, port string) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		return h, p
	}
	return host, ""
}
