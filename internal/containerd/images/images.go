// Package images puts container images from archives into a node's containerd, lists them and removes them. It works on
// the namespace that CRI uses, so what is loaded is at once what pods can run, without a registry.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"google.golang.org/grpc"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Namespace is the containerd namespace of CRI.
const Namespace = "k8s.io"

// labelPinned marks images that CRI reports as pinned (containerd, internal/cri/labels).
const labelPinned, valuePinned = "io.cri-containerd.pinned", "pinned"

// visibleTimeout bounds the wait until CRI has noticed a loaded image, which takes it milliseconds.
const visibleTimeout = 10 * time.Second

// Image is an image in a node's store.
type Image struct {
	// Name is the full reference, such as docker.io/library/busybox:1.36.
	Name string
	// Digest identifies the manifest (sha256:...).
	Digest string
	// Size is the size in bytes of the compressed contents; 0 if they are not all present.
	Size int64
	// Pinned images are not removed to free disk space.
	Pinned bool
	// Created is when the name was first stored.
	Created time.Time
}

// Progress is called by Load after an image was unpacked.
type Progress func(Image)

// Load reads an archive made by `docker save` or an OCI image layout in a tar file, plain or compressed with gzip or zstd,
// from r, and makes its images runnable on the node whose containerd listens on the socket at address. Names are
// completed as Docker does (busybox becomes docker.io/library/busybox:latest). It returns when CRI knows the images.
// progress may be nil.
func Load(ctx context.Context, address string, r io.Reader, progress Progress) ([]Image, error) {
	c, err := connect(address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	// The lease keeps the garbage collector from what is half loaded.
	ctx, done, err := c.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("loading images: %w", err)
	}
	defer done(context.WithoutCancel(ctx))

	plain, err := compression.DecompressStream(r)
	if err != nil {
		return nil, fmt.Errorf("reading image archive: %w", err)
	}
	defer plain.Close()
	imported, err := c.Import(ctx, plain,
		client.WithImageRefTranslator(completeName), client.WithSkipMissing(), client.WithDiscardUnpackedLayers())
	if err != nil {
		return nil, fmt.Errorf("reading image archive: %w", err)
	}
	if len(imported) == 0 {
		return nil, errors.New("reading image archive: it names no image")
	}
	loaded := make([]Image, 0, len(imported))
	for _, meta := range imported {
		image := client.NewImage(c, meta)
		if err := image.Unpack(ctx, ""); err != nil {
			return loaded, fmt.Errorf("unpacking image %s: %w", meta.Name, err)
		}
		if err := waitVisible(ctx, c, image); err != nil {
			return loaded, fmt.Errorf("loading image %s: %w", meta.Name, err)
		}
		info := describe(ctx, image)
		if progress != nil {
			progress(info)
		}
		loaded = append(loaded, info)
	}
	return loaded, nil
}

// List returns the named images of the node, ordered by name.
func List(ctx context.Context, address string) ([]Image, error) {
	c, err := connect(address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	list := make([]Image, 0, len(all))
	for _, image := range all {
		if !isID(image.Name()) {
			list = append(list, describe(ctx, image))
		}
	}
	slices.SortFunc(list, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Remove removes an image by its name. The contents go when no other name refers to them. The error wraps
// errdefs.ErrNotFound if there is no such image.
func Remove(ctx context.Context, address, name string) error {
	full := completeName(name)
	if full == "" {
		return fmt.Errorf("removing image %q: invalid image name: %w", name, errdefs.ErrInvalidArgument)
	}
	c, err := connect(address)
	if err != nil {
		return err
	}
	defer c.Close()
	target, err := c.ImageService().Get(ctx, full)
	if err != nil {
		return fmt.Errorf("removing image %s: %w", full, err)
	}
	same, err := c.ImageService().List(ctx, "target.digest=="+target.Target.Digest.String())
	if err != nil {
		return fmt.Errorf("removing image %s: %w", full, err)
	}
	for _, other := range same {
		if other.Name != full && !isID(other.Name) {
			return c.ImageService().Delete(ctx, full, images.SynchronousDelete())
		}
	}
	// CRI removes the reference by identity, too.
	_, err = imageService(c).RemoveImage(ctx,
		&criapi.RemoveImageRequest{Image: &criapi.ImageSpec{Image: full}})
	if err != nil {
		return fmt.Errorf("removing image %s: %w", full, err)
	}
	return nil
}

func connect(address string) (*client.Client, error) {
	c, err := client.New(strings.TrimPrefix(address, "unix://"), client.WithDefaultNamespace(Namespace))
	if err != nil {
		return nil, fmt.Errorf("connecting to containerd at %s: %w", address, err)
	}
	return c, nil
}

// imageService returns the CRI image service that containerd serves beside its own API.
func imageService(c *client.Client) criapi.ImageServiceClient {
	return criapi.NewImageServiceClient(c.Conn().(grpc.ClientConnInterface))
}

// completeName completes a reference to its full form. It returns "" for what is none, such as the bare tag that an OCI
// layout may carry instead of a name.
func completeName(ref string) string {
	if !strings.ContainsAny(ref, "/:@") && strings.Trim(ref, "0123456789.") == "" {
		return ""
	}
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ""
	}
	return named.String()
}

// isID says whether name is a reference by identity (sha256:...), of which CRI makes one for each image.
func isID(name string) bool { return strings.HasPrefix(name, "sha256:") }

func describe(ctx context.Context, image client.Image) Image {
	info := Image{
		Name:    image.Name(),
		Digest:  image.Target().Digest.String(),
		Pinned:  image.Labels()[labelPinned] == valuePinned,
		Created: image.Metadata().CreatedAt,
	}
	if size, err := image.Usage(ctx, client.WithManifestUsage()); err == nil {
		info.Size = size
	}
	return info
}

// waitVisible waits until CRI's cache of images, which follows containerd's events, has image under its name.
func waitVisible(ctx context.Context, c *client.Client, image client.Image) error {
	config, err := image.Config(ctx)
	if err != nil {
		return fmt.Errorf("reading its configuration: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, visibleTimeout, errors.New("CRI does not show it"))
	defer cancel()
	service := imageService(c)
	request := &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: image.Name()}}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		response, err := service.ImageStatus(ctx, request)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if response.GetImage().GetId() == config.Digest.String() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}
