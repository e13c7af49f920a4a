package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/proa-k8s/proa/internal/containerd/helpers"
	"github.com/proa-k8s/proa/internal/containerd/images"
)

// ensureSandboxImage loads the sandbox image unless the very same is there. It also tells containerd's clients which
// snapshotter to use by default in CRI's namespace.
func (in *Instance) ensureSandboxImage(ctx context.Context) error {
	c, err := client.New(in.cfg.Address, client.WithDefaultNamespace(images.Namespace))
	if err != nil {
		return fmt.Errorf("connecting to containerd: %w", err)
	}
	defer c.Close()
	if err := setDefaultSnapshotter(ctx, c, in.snapshotter); err != nil {
		return err
	}
	if in.cfg.SandboxImage != DefaultSandboxImage {
		return nil
	}
	pause, err := helpers.Read(helpers.Pause)
	if err != nil {
		return err
	}
	archive, manifest, err := sandboxImage(pause, in.cfg.SandboxImage)
	if err != nil {
		return fmt.Errorf("making the sandbox image: %w", err)
	}
	if present, err := c.GetImage(ctx, in.cfg.SandboxImage); err == nil && present.Target().Digest == manifest {
		if unpacked, err := present.IsUnpacked(ctx, in.snapshotter); err == nil && unpacked {
			return nil
		}
	}
	if _, err := images.Load(ctx, in.cfg.Address, archive, nil); err != nil {
		return fmt.Errorf("loading the sandbox image: %w", err)
	}
	return nil
}

// setDefaultSnapshotter makes the namespace of CRI, if need be, with a label that clients obey.
func setDefaultSnapshotter(ctx context.Context, c *client.Client, snapshotter string) error {
	namespaces := c.NamespaceService()
	labels, err := namespaces.Labels(ctx, images.Namespace)
	if errdefs.IsNotFound(err) {
		err = namespaces.Create(ctx, images.Namespace, map[string]string{defaults.DefaultSnapshotterNSLabel: snapshotter})
	} else if err == nil && labels[defaults.DefaultSnapshotterNSLabel] != snapshotter {
		err = namespaces.SetLabel(ctx, images.Namespace, defaults.DefaultSnapshotterNSLabel, snapshotter)
	}
	if err != nil {
		return fmt.Errorf("setting the default snapshotter: %w", err)
	}
	return nil
}

// sandboxImage returns an OCI image layout as a tar archive whose one image, with the given name, holds nothing but the
// executable pause, and the digest of its manifest. The same executable makes the same bytes.
func sandboxImage(pause []byte, name string) (archive io.Reader, manifest digest.Digest, err error) {
	layer, err := tarball(map[string][]byte{"pause": pause}, "pause")
	if err != nil {
		return nil, "", err
	}
	blobs := map[string][]byte{}
	var order []string
	add := func(mediaType string, data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		path := "blobs/sha256/" + d.Digest.Encoded()
		blobs[path] = data
		order = append(order, path)
		return d
	}
	addJSON := func(mediaType string, v any) (ocispec.Descriptor, error) {
		data, err := json.Marshal(v)
		return add(mediaType, data), err
	}
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	config, err := addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: platform,
		Config:   ocispec.ImageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	if err != nil {
		return nil, "", err
	}
	target, err := addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    []ocispec.Descriptor{add(ocispec.MediaTypeImageLayer, layer)},
	})
	if err != nil {
		return nil, "", err
	}
	target.Platform = &platform
	target.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{target},
	})
	if err != nil {
		return nil, "", err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return nil, "", err
	}
	blobs[ocispec.ImageLayoutFile], blobs[ocispec.ImageIndexFile] = layout, index
	data, err := tarball(blobs, append(order, ocispec.ImageIndexFile, ocispec.ImageLayoutFile)...)
	return bytes.NewReader(data), target.Digest, err
}

// tarball packs the named files, executable by all, in the given order.
func tarball(files map[string][]byte, names ...string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range names {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(files[name]))}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
