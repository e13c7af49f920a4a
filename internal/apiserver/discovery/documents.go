package discovery

import (
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
)

// Documents are all discovery documents of one state of the catalogue. They are immutable.
type Documents struct {
	// plain are the documents by path; aggregated those of /api and /apis in their aggregated form.
	plain      map[string]*document
	aggregated map[string]*document
}

// New makes the documents of what is served.
func New(resources []*api.Resource) *Documents {
	c := sorted(resources)
	d := &Documents{
		plain: map[string]*document{"/apis": {obj: c.groupList()}},
		aggregated: map[string]*document{
			"/api":  {obj: c.aggregated(true)},
			"/apis": {obj: c.aggregated(false)},
		},
	}
	for _, group := range c.groups {
		if group != "" {
			g := c.apiGroup(group)
			g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			d.plain["/apis/"+group] = &document{obj: &g}
		}
		for _, v := range c.versions[group] {
			gv := schema.GroupVersion{Group: group, Version: v}
			path := "/apis/" + gv.String()
			if group == "" {
				path = "/api/" + v
			}
			d.plain[path] = &document{obj: c.resourceList(gv)}
		}
	}
	return d
}

// document is one document, encoded when it is first asked for.
type document struct {
	obj runtime.Object

	mu      sync.Mutex
	encoded [3][]byte // by codec.Encoding
	etag    string
}

func (d *document) bytes(types *codec.Types, enc codec.Encoding) ([]byte, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.etag == "" {
		data, err := json.Marshal(d.obj)
		if err != nil {
			return nil, "", err
		}
		sum := sha512.Sum512(data)
		d.etag = `"` + strings.ToUpper(hex.EncodeToString(sum[:])) + `"`
	}
	if d.encoded[enc] == nil {
		data, err := types.Encode(d.obj, enc)
		if err != nil {
			return nil, "", err
		}
		d.encoded[enc] = data
	}
	return d.encoded[enc], d.etag, nil
}

// aggregatedType is what a client asks for that wants everything in one document.
var aggregatedKind = schema.GroupVersionKind{Group: "apidiscovery.k8s.io", Version: "v2", Kind: "APIGroupDiscoveryList"}

func offer(_ codec.Encoding, convert schema.GroupVersionKind) bool {
	return convert.Empty() || convert == aggregatedKind
}

// Answer is a document on its way to a client.
type Answer struct {
	Body  []byte
	Media negotiate.Media
	// ContentType of an aggregated document names its kind.
	ContentType string
	// NotModified says that the client has the document already.
	NotModified bool
}

// Find answers a request for a document, and sets the headers for caches; nil if there is none at the path.
func (d *Documents) Find(w http.ResponseWriter, r *http.Request, types *codec.Types) (*Answer, error) {
	path := strings.TrimSuffix(r.URL.Path, "/")
	doc := d.plain[path]
	if doc == nil && d.aggregated[path] == nil {
		return nil, nil
	}
	media, err := negotiate.Answer(r, offer)
	if err != nil {
		return nil, err
	}
	a := &Answer{Media: media, ContentType: media.Encoding.MediaType()}
	if media.Convert == aggregatedKind && d.aggregated[path] != nil {
		body, etag, err := d.aggregated[path].bytes(types, media.Encoding)
		if err != nil {
			return nil, err
		}
		a.Body, a.NotModified = body, r.Header.Get("If-None-Match") == etag
		a.ContentType += ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
		h := w.Header()
		h.Set("ETag", etag)
		h.Set("Vary", "Accept")
		h.Set("Cache-Control", "public")
		return a, nil
	}
	if media.Convert == aggregatedKind {
		a.Media.Convert = schema.GroupVersionKind{}
	}
	if path == "/api" {
		a.Body, err = types.Encode(coreVersions(r), media.Encoding)
		return a, err
	}
	a.Body, _, err = doc.bytes(types, media.Encoding)
	return a, err
}

// coreVersions is the document at /api, which tells clients where the server is.
func coreVersions(r *http.Request) *metav1.APIVersions {
	address := r.Host
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		address = local.String()
	}
	return &metav1.APIVersions{
		TypeMeta: metav1.TypeMeta{Kind: "APIVersions", APIVersion: ""},
		Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{
			ClientCIDR: "0.0.0.0/0", ServerAddress: address,
		}},
	}
}
