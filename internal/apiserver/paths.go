package apiserver

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
)

// servePath serves paths that are no resources.
func (s *Server) servePath(w http.ResponseWriter, r *http.Request, info *apirequest.RequestInfo) error {
	if h := s.extra(info.Path); h != nil {
		h.ServeHTTP(w, r)
		return nil
	}
	served := s.served.Load()
	if info.Path == "/api" || strings.HasPrefix(info.Path, "/api/") || info.Path == "/apis" || strings.HasPrefix(info.Path, "/apis/") {
		return s.serveDiscovery(w, r, served)
	}
	path := info.Path
	root, check, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case root == "healthz" || root == "livez" || root == "readyz":
		s.serveHealth(w, r, root, strings.TrimSuffix(check, "/"))
	case path == "/version" || path == "/version/":
		s.serveIndented(w, r, s.config.Version)
	case path == "/metrics" && s.gatherer() != nil:
		promhttp.HandlerFor(s.gatherer(), promhttp.HandlerOpts{}).ServeHTTP(w, r)
	case path == "/" || path == "/index.html":
		s.serveIndented(w, r, map[string][]string{"paths": s.paths(served)})
	default:
		http.NotFound(w, r)
	}
	return nil
}

// extra finds the handler of a path among those that were configured: one of the path itself, or of the nearest above it.
func (s *Server) extra(path string) http.Handler {
	if h := s.config.Extra[path]; h != nil {
		return h
	}
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] != '/' {
			continue
		}
		if h := s.config.Extra[path[:i+1]]; h != nil {
			return h
		}
	}
	return nil
}

// gatherer is the registry of the request metrics, if it can be read.
func (s *Server) gatherer() prometheus.Gatherer {
	g, _ := s.config.Registerer.(prometheus.Gatherer)
	return g
}

func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request, served *served) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return errNoSuchMethod()
	}
	a, err := served.documents.Find(w, r, s.types)
	if err != nil {
		return err
	}
	if a == nil {
		return errNoSuchPath()
	}
	if a.NotModified {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	s.sendAs(w, r, http.StatusOK, a.Media, a.ContentType, a.Body)
	return nil
}

// serveIndented answers with JSON for people.
func (s *Server) serveIndented(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.send(w, r, http.StatusOK, negotiate.Media{Pretty: true}, body)
}

// paths are those that the index at / lists.
func (s *Server) paths(served *served) []string {
	list := served.documents.Paths()
	list = append(list, "/healthz", "/livez", "/readyz", "/version")
	for _, root := range []string{"healthz", "livez", "readyz"} {
		for _, c := range s.checks(root) {
			list = append(list, "/"+root+"/"+c.Name)
		}
	}
	if s.gatherer() != nil {
		list = append(list, "/metrics")
	}
	for path := range maps.Keys(s.config.Extra) {
		list = append(list, strings.TrimSuffix(path, "/"))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// checks are those of a health check: all for /readyz, those of a living process for the others.
func (s *Server) checks(root string) []Check {
	list := []Check{{Name: "ping", Live: true, Func: nil}}
	for _, c := range s.config.Checks {
		if root == "readyz" || c.Live {
			list = append(list, c)
		}
	}
	if root == "readyz" {
		list = append(list, Check{Name: "caches", Func: s.checkCaches}, Check{Name: "shutdown", Func: s.checkShutdown})
	}
	return list
}

// serveHealth serves /healthz, /livez and /readyz, whole or a single check of theirs.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request, root, only string) {
	var report strings.Builder
	failed := false
	found := only == ""
	exclude := r.URL.Query()["exclude"]
	for _, c := range s.checks(root) {
		if only != "" && c.Name != only {
			continue
		}
		found = true
		if slices.Contains(exclude, c.Name) {
			exclude = slices.DeleteFunc(exclude, func(name string) bool { return name == c.Name })
			fmt.Fprintf(&report, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		if c.Func == nil {
			fmt.Fprintf(&report, "[+]%s ok\n", c.Name)
			continue
		}
		if err := c.Func(r.Context()); err != nil {
			failed = true
			s.log.Warn("health check failed", "check", root+"/"+c.Name, "error", err)
			fmt.Fprintf(&report, "[-]%s failed: reason withheld\n", c.Name) // the endpoint is public, the log is not
			continue
		}
		fmt.Fprintf(&report, "[+]%s ok\n", c.Name)
	}
	if !found {
		http.NotFound(w, r)
		return
	}
	if len(exclude) > 0 {
		quoted := make([]string, len(exclude))
		for i, name := range exclude {
			quoted[i] = fmt.Sprintf("%q", name)
		}
		fmt.Fprintf(&report, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(quoted, ","))
	}
	answerHealth(w, r, root, only, report.String(), failed)
}

func answerHealth(w http.ResponseWriter, r *http.Request, root, only, report string, failed bool) {
	if failed {
		http.Error(w, report+root+" check failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if only != "" || !r.URL.Query().Has("verbose") {
		_, _ = io.WriteString(w, "ok")
		return
	}
	_, _ = io.WriteString(w, report+root+" check passed\n")
}
