// Package catalog builds the container images that examples, stories and tests need, from this project's own programs
// and from packages of the machine, without a network. The same inputs make the same bytes.
//
// The stand-ins carry the names that tutorials use; they do what the stories show and no more.
package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// Images are images by their full references.
type Images map[name.Tag]v1.Image

// recipe makes the contents of an image; the images differ in tag and environment only.
type recipe struct {
	build  func(files) error
	config v1.Config
	tags   []tagged
}

type tagged struct {
	ref string
	env []string
}

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var recipes = map[string]recipe{
	"agnhost": {
		build: func(f files) error {
			f.accounts()
			return cmp.Or(f.program("agnhost", "agnhost"), f.busybox("bin"))
		},
		config: v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, ExposedPorts: ports("8080/tcp", "8081/udp")},
		tags:   []tagged{{"registry.local/agnhost:2", nil}},
	},
	"hello": {
		build:  func(f files) error { return f.program("hello", "hello") },
		config: v1.Config{Entrypoint: []string{"/hello"}, User: "65532:65532", ExposedPorts: ports("8080/tcp")},
		tags: []tagged{
			{"proa.local/hello:1", []string{"VERSION=1"}},
			{"proa.local/hello:2", []string{"VERSION=2"}},
		},
	},
	"busybox": {
		build: func(f files) error {
			f.accounts()
			return f.busybox("bin")
		},
		config: v1.Config{Cmd: []string{"sh"}},
		tags:   []tagged{{"busybox:1.36", nil}, {"busybox:latest", nil}},
	},
	"nginx": {
		build: func(f files) error {
			f.accounts()
			f.text("usr/share/nginx/html/index.html", welcome)
			f.text("usr/share/nginx/html/50x.html", "<!DOCTYPE html>\n<html><h1>An error occurred.</h1></html>\n")
			return cmp.Or(f.program("nginx", "usr/sbin/nginx"), f.busybox("bin"))
		},
		config: v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, StopSignal: "SIGQUIT", ExposedPorts: ports("80/tcp")},
		tags: []tagged{
			{"registry.local/nginx:1.20.1", []string{"NGINX_VERSION=1.20.1"}},
			{"registry.local/nginx:1.21.6", []string{"NGINX_VERSION=1.21.6"}},
			{"registry.local/nginx:latest", []string{"NGINX_VERSION=1.27.0"}},
		},
	},
	"simpleservice": {
		build:  func(f files) error { return f.program("simpleservice", "simpleservice") },
		config: v1.Config{Entrypoint: []string{"/simpleservice"}, ExposedPorts: ports("9876/tcp")},
		tags:   []tagged{{"quay.io/openshiftlabs/simpleservice:0.5.0", nil}},
	},
	"centos": {
		build: func(f files) error {
			f.accounts()
			for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
				f.link(dir, "usr/"+dir)
			}
			f.dir("usr/sbin", 0o755)
			f.text("etc/centos-release", "CentOS Linux release 7.9.2009 (stand-in)\n")
			return cmp.Or(f.installed("/usr/bin/bash", "bash"), f.installed("/usr/bin/curl", "curl"), f.busybox("usr/bin"))
		},
		config: v1.Config{Cmd: []string{"/bin/bash"}},
		tags:   []tagged{{"centos:7", nil}},
	},
	"tomcat": {
		build: func(f files) error {
			f.accounts()
			return cmp.Or(f.program("tomcat", "usr/local/tomcat/bin/catalina"), f.busybox("bin"))
		},
		config: v1.Config{
			Cmd:          []string{"/usr/local/tomcat/bin/catalina", "run"},
			WorkingDir:   "/usr/local/tomcat",
			ExposedPorts: ports("8080/tcp"),
		},
		tags: []tagged{{"registry.local/tomcat:8.5.100-jre8", []string{"TOMCAT_VERSION=8.5.100"}}},
	},
}

const welcome = `<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>This server stands in for nginx in examples and tests.</p>
</body>
</html>
`

// Names returns what can be built, in order.
func Names() []string { return slices.Sorted(maps.Keys(recipes)) }

// Build builds the images with the given name of the catalogue.
func Build(image string) (Images, error) {
	r, ok := recipes[image]
	if !ok {
		return nil, fmt.Errorf("there is no recipe for image %q", image)
	}
	contents := files{}
	if err := r.build(contents); err != nil {
		return nil, fmt.Errorf("building image %s: %w", image, err)
	}
	layer, err := contents.layer()
	if err != nil {
		return nil, fmt.Errorf("building image %s: %w", image, err)
	}
	images := Images{}
	for _, t := range r.tags {
		tag, err := name.NewTag(t.ref)
		if err != nil {
			return nil, fmt.Errorf("building image %s: %w", image, err)
		}
		config := r.config
		config.Env = append([]string{searchPath}, t.env...)
		if images[tag], err = assemble(layer, config); err != nil {
			return nil, fmt.Errorf("building image %s: %w", image, err)
		}
	}
	return images, nil
}

func assemble(layer v1.Layer, config v1.Config) (v1.Image, error) {
	base, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS:           "linux",
		Architecture: runtime.GOARCH,
		Config:       config,
		RootFS:       v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, layer)
}

func ports(list ...string) map[string]struct{} {
	set := map[string]struct{}{}
	for _, port := range list {
		set[port] = struct{}{}
	}
	return set
}
