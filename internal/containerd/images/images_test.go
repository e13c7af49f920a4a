package images_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/klauspost/compress/zstd"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/containerd/containerdtest"
	"github.com/proa-k8s/proa/internal/containerd/images"
	"github.com/proa-k8s/proa/test/images/catalog"
)

// ociLayout packs an image of the catalogue as an OCI layout whose one image carries the reference name.
func ociLayout(t *testing.T, from, ref string) []byte {
	t.Helper()
	all, err := catalog.Build(from)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range all {
		annotations := map[string]string{}
		if ref != "" {
			annotations["org.opencontainers.image.ref.name"] = ref
		}
		if err := path.AppendImage(image, layout.WithAnnotations(annotations)); err != nil {
			t.Fatal(err)
		}
		break
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func names(list []images.Image) []string {
	var out []string
	for _, image := range list {
		out = append(out, image.Name)
	}
	return out
}

// TestImages loads archives of every kind into one node, lists and removes them.
func TestImages(t *testing.T) {
	ctx := t.Context()
	node := containerdtest.Start(t)
	address, root, cri := node.Address(), node.Config.Root, node.Images

	var docker bytes.Buffer
	if err := catalog.Write("hello", &docker); err != nil {
		t.Fatal(err)
	}
	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	if _, err := zw.Write(docker.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zst := enc.EncodeAll(ociLayout(t, "busybox", "busybox"), nil)

	good := []struct {
		name string
		data []byte
		want []string
	}{
		{"docker", docker.Bytes(), []string{"proa.local/hello:1", "proa.local/hello:2"}},
		{"docker, gzip, again", gz.Bytes(), []string{"proa.local/hello:1", "proa.local/hello:2"}},
		{"oci, zstd, short name", zst, []string{"docker.io/library/busybox:latest"}},
		{"oci, full name", ociLayout(t, "simpleservice", "quay.io/x/y:1.2"), []string{"quay.io/x/y:1.2"}},
	}
	for _, test := range good {
		t.Run(test.name, func(t *testing.T) {
			var seen []images.Image
			loaded, err := images.Load(ctx, address, bytes.NewReader(test.data), func(i images.Image) { seen = append(seen, i) })
			if err != nil {
				t.Fatal(err)
			}
			got := names(loaded)
			slices.Sort(got)
			if !slices.Equal(got, test.want) || !slices.Equal(names(seen), names(loaded)) {
				t.Errorf("loaded %v, progress %v, want %v", got, names(seen), test.want)
			}
			for _, image := range loaded {
				status, err := cri.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: image.Name}})
				if err != nil || status.Image == nil || !slices.Contains(status.Image.RepoTags, image.Name) {
					t.Errorf("CRI says %v, %v", status, err)
				}
				if image.Size <= 0 || !strings.HasPrefix(image.Digest, "sha256:") || image.Created.IsZero() {
					t.Errorf("incomplete: %+v", image)
				}
			}
		})
	}

	bad := []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "reading image archive"},
		{"no archive", []byte(strings.Repeat("hello ", 1000)), "reading image archive"},
		{"cut off", docker.Bytes()[:docker.Len()/2], "reading image archive"},
		{"broken gzip", gz.Bytes()[:gz.Len()/2], "reading image archive"},
		{"no name", ociLayout(t, "simpleservice", ""), "it names no image"},
		{"bare tag", ociLayout(t, "simpleservice", "1.36"), "it names no image"},
		{"bad name", ociLayout(t, "simpleservice", "A/B:c"), "it names no image"},
	}
	for _, test := range bad {
		t.Run(test.name, func(t *testing.T) {
			if _, err := images.Load(ctx, address, bytes.NewReader(test.data), nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}

	list, err := images.List(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"docker.io/library/busybox:latest", "proa.local/hello:1", "proa.local/hello:2", "proa.local/pause:1", "quay.io/x/y:1.2"}
	if !slices.Equal(names(list), want) {
		t.Errorf("listed %v, want %v", names(list), want)
	}
	if i := slices.Index(names(list), "proa.local/pause:1"); i >= 0 && !list[i].Pinned {
		t.Error("the sandbox image is not pinned")
	}

	t.Run("remove", func(t *testing.T) {
		if err := images.Remove(ctx, address, "busybox"); err != nil {
			t.Fatal(err)
		}
		status, err := cri.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: "busybox"}})
		if err != nil || status.Image != nil {
			t.Errorf("CRI still says %v, %v", status, err)
		}
		if err := images.Remove(ctx, address, "busybox"); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("removing what is not there: %v", err)
		}
		if err := images.Remove(ctx, address, "A B"); err == nil || !strings.Contains(err.Error(), "invalid image name") {
			t.Errorf("removing nonsense: %v", err)
		}
	})

	t.Run("pull", func(t *testing.T) {
		registry := catalog.NewRegistry(nil)
		defer registry.Close()
		built, err := catalog.Build("busybox")
		if err != nil {
			t.Fatal(err)
		}
		if err := registry.Push(built); err != nil {
			t.Fatal(err)
		}
		// A mirror for a name that nobody serves, found in the directory of registry configurations.
		dir := filepath.Join(root, "certs.d", "registry.test")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		hosts := "server = \"http://" + registry.Host() + "\"\n[host.\"http://" + registry.Host() + "\"]\n"
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(hosts), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{"registry.test/library/busybox:1.36", registry.Host() + "/library/busybox:latest"} {
			if _, err := cri.PullImage(ctx, &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}}); err != nil {
				t.Errorf("pulling %s: %v", ref, err)
			}
		}
	})
}
