package catalog

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry is an OCI registry on a loopback port, for tests of pulling.
type Registry struct {
	server *httptest.Server
}

// NewRegistry starts an empty registry; wrap, if not nil, is put around its handler (to ask for a password, to fail).
func NewRegistry(wrap func(http.Handler) http.Handler) *Registry {
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		handler = wrap(handler)
	}
	return &Registry{server: httptest.NewServer(handler)}
}

// Host returns the host and port of the registry, which serves plain HTTP.
func (r *Registry) Host() string {
	u, err := url.Parse(r.server.URL)
	if err != nil {
		panic(err) // httptest makes valid addresses
	}
	return u.Host
}

// Push puts images into the registry, under their own repositories and tags.
func (r *Registry) Push(images Images) error {
	for tag, image := range images {
		dest, err := name.NewTag(fmt.Sprintf("%s/%s:%s", r.Host(), tag.RepositoryStr(), tag.TagStr()), name.Insecure)
		if err != nil {
			return err
		}
		if err := remote.Write(dest, image); err != nil {
			return fmt.Errorf("pushing %s: %w", dest, err)
		}
	}
	return nil
}

// Close stops the registry.
func (r *Registry) Close() { r.server.Close() }
