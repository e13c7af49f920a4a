// Package openapi serves the OpenAPI documents of the API.
//
// What flows in are documents that were made at build time (hack/openapi) and are embedded compressed; what flows out are
// answers below /openapi/v2 and /openapi/v3, in JSON or protobuf. A client that accepts gzip, as all do, gets the embedded bytes
// as they are; nothing is decompressed before somebody who doesn't asks.
package openapi

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
)

// IndexFile lists the documents.
const IndexFile = "index.json"

//go:embed all:embedded
var embedded embed.FS

// Document is one document of the index.
type Document struct {
	// Path is where it is served: "v2", or "v3/api/v1" and "v3/apis/apps/v1".
	Path string `json:"path"`
	// Hash is the SHA-512 of its JSON form in upper case hexadecimals.
	Hash string `json:"hash"`
}

// JSONFile and ProtoFile are the names of the files with the document's two forms.
func (d Document) JSONFile() string { return strings.ReplaceAll(d.Path, "/", "_") + ".json.gz" }

// ProtoFile is the name of the file with the protobuf form.
func (d Document) ProtoFile() string { return strings.ReplaceAll(d.Path, "/", "_") + ".pb.gz" }

const (
	v2Proto = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	v2Old   = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	v3Proto = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	v3Old   = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
)

// Handler serves /openapi/v2, /openapi/v3 and the documents below it.
type Handler struct {
	files     fs.FS
	documents map[string]Document // by path
	v3        []byte              // the list of documents
}

// New makes the handler of the embedded documents. It fails when the build has left them out.
func New() (*Handler, error) {
	files, err := fs.Sub(embedded, "embedded")
	if err != nil {
		return nil, err
	}
	return newHandler(files)
}

func newHandler(files fs.FS) (*Handler, error) {
	data, err := fs.ReadFile(files, IndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the OpenAPI documents are not embedded: build with make")
	}
	if err != nil {
		return nil, err
	}
	var index []Document
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("index of OpenAPI documents: %w", err)
	}
	h := &Handler{files: files, documents: map[string]Document{}}
	type link struct {
		URL string `json:"serverRelativeURL"`
	}
	links := map[string]link{}
	for _, d := range index {
		h.documents[d.Path] = d
		if name, ok := strings.CutPrefix(d.Path, "v3/"); ok {
			links[name] = link{"/openapi/" + d.Path + "?hash=" + d.Hash}
		}
	}
	h.v3, err = json.Marshal(map[string]any{"paths": links})
	return h, err
}

// ServeHTTP answers GET and HEAD.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	path := strings.Trim(strings.TrimPrefix(r.URL.Path, "/openapi/"), "/")
	if path == "v3" {
		w.Header().Set("Content-Type", "application/json")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(h.v3))
		return
	}
	d, ok := h.documents[path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	// A link from the list names what it expects. If that has changed, the reader is sent to the present one; else it
	// may keep the document for good.
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != d.Hash {
			http.Redirect(w, r, r.URL.Path+"?hash="+d.Hash, http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	h.serve(w, r, d)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, d Document) {
	file, contentType, ok := negotiate(d, r.Header.Get("Accept"))
	if !ok {
		http.Error(w, http.StatusText(http.StatusNotAcceptable), http.StatusNotAcceptable)
		return
	}
	data, err := fs.ReadFile(h.files, file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	w.Header().Set("Etag", `"`+d.Hash+`"`)
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		w.Header().Set("Content-Encoding", "gzip")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		return
	}
	if match := r.Header.Get("If-None-Match"); match != "" && strings.Contains(match, d.Hash) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if r.Method == http.MethodGet {
		_, _ = io.Copy(w, z) // an error is the client's, who has gone
	}
}

// negotiate chooses the form of a document.
func negotiate(d Document, accept string) (file, contentType string, ok bool) {
	protos := []string{v3Proto, v3Old}
	if d.Path == "v2" {
		protos = []string{v2Proto, v2Old}
	}
	if accept == "" {
		return d.JSONFile(), "application/json", true
	}
	for clause := range strings.SplitSeq(accept, ",") {
		// An old form of the name has a character that no media type may have.
		name, _, _ := strings.Cut(strings.TrimSpace(clause), ";")
		if slices.Contains(protos, name) {
			return d.ProtoFile(), protos[0], true
		}
		switch mediaType, _, err := mime.ParseMediaType(clause); {
		case err != nil:
		case mediaType == "application/json" || mediaType == "application/*" || mediaType == "*/*":
			return d.JSONFile(), "application/json", true
		}
	}
	return "", "", false
}

func acceptsGzip(header string) bool {
	for clause := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(clause), ";")
		if (name == "gzip" || name == "*") && strings.ReplaceAll(params, " ", "") != "q=0" {
			return true
		}
	}
	return false
}
