package catalog

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestWrite makes the same bytes each time, and an archive that others can read.
func TestWrite(t *testing.T) {
	for _, image := range Names() {
		t.Run(image, func(t *testing.T) {
			var first, second bytes.Buffer
			if err := Write(image, &first); err != nil {
				if strings.Contains(err.Error(), "Debian package") {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			if err := Write(image, &second); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first.Bytes(), second.Bytes()) {
				t.Error("the same image has other bytes the second time")
			}
			for _, tag := range recipes[image].tags {
				ref, err := name.NewTag(tag.ref)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tarball.Image(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(first.Bytes())), nil }, &ref); err != nil {
					t.Errorf("reading %s: %v", ref, err)
				}
			}
		})
	}
	if err := Write("nonsense", new(bytes.Buffer)); err == nil {
		t.Error("an unknown image was built")
	}
}

// TestRegistry pushes and finds an image.
func TestRegistry(t *testing.T) {
	images, err := Build("hello")
	if err != nil {
		t.Fatal(err)
	}
	registry := NewRegistry(nil)
	defer registry.Close()
	if err := registry.Push(images); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(registry.Host()+"/hello:2", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil || config.Config.Env[1] != "VERSION=2" {
		t.Errorf("got %+v, %v", config, err)
	}
}
