// Command nginx stands in for the web server of that name in stories and tests: it serves /usr/share/nginx/html on port
// 80, refuses to list directories, and writes its access log to standard output.
package main

import (
	"context"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"
)

const root = "/usr/share/nginx/html"

func main() {
	server := &http.Server{
		Addr:              ":80",
		Handler:           site{files: os.DirFS(root), version: os.Getenv("NGINX_VERSION")},
		ReadHeaderTimeout: 60 * time.Second,
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		log.Fatal(err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(last); err != nil {
		log.Fatal(err)
	}
}

// site serves files as nginx does with its default configuration.
type site struct {
	files   fs.FS
	version string
}

func (s site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "nginx/"+s.version)
	status := s.serve(w, r)
	client, _, _ := net.SplitHostPort(r.RemoteAddr)
	fmt.Printf("%s - - [%s] \"%s %s %s\" %d \"%s\"\n", client, time.Now().Format("02/Jan/2006:15:04:05 -0700"),
		r.Method, r.URL.RequestURI(), r.Proto, status, r.UserAgent())
}

func (s site) serve(w http.ResponseWriter, r *http.Request) int {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return s.fail(w, http.StatusMethodNotAllowed, "Not Allowed")
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if name == "" {
		name = "."
	}
	info, err := fs.Stat(s.files, name)
	if err != nil {
		return s.fail(w, http.StatusNotFound, "Not Found")
	}
	if info.IsDir() {
		name = path.Join(name, "index.html")
		if info, err = fs.Stat(s.files, name); err != nil || info.IsDir() {
			return s.fail(w, http.StatusForbidden, "Forbidden")
		}
	}
	data, err := fs.ReadFile(s.files, name)
	if err != nil {
		return s.fail(w, http.StatusForbidden, "Forbidden")
	}
	if path.Ext(name) == ".html" {
		w.Header().Set("Content-Type", "text/html")
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Header().Set("Last-Modified", info.ModTime().UTC().Format(http.TimeFormat))
	if r.Method == http.MethodGet {
		_, _ = w.Write(data)
	}
	return http.StatusOK
}

func (s site) fail(w http.ResponseWriter, status int, text string) int {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html>\r\n<head><title>%[1]d %[2]s</title></head>\r\n<body>\r\n<center><h1>%[1]d %[2]s</h1></center>\r\n"+
		"<hr><center>nginx/%[3]s</center>\r\n</body>\r\n</html>\r\n", status, text, s.version)
	return status
}
