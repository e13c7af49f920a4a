package catalog

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Write builds the images with the given name of the catalogue and writes them to w as `docker save` does.
func Write(image string, w io.Writer) error {
	images, err := Build(image)
	if err != nil {
		return err
	}
	if err := images.write(w); err != nil {
		return fmt.Errorf("writing image %s: %w", image, err)
	}
	return nil
}

// write does what tarball.MultiWrite does, but in an order that does not change from run to run.
func (images Images) write(w io.Writer) error {
	archive := tar.NewWriter(w)
	written := map[string]bool{}
	put := func(name string, data []byte) error {
		if written[name] {
			return nil
		}
		written[name] = true
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		_, err := archive.Write(data)
		return err
	}
	var manifest tarball.Manifest
	tags := slices.SortedFunc(maps.Keys(images), func(a, b name.Tag) int { return strings.Compare(a.Name(), b.Name()) })
	for _, tag := range tags {
		entry, err := putImage(images[tag], put)
		if err != nil {
			return err
		}
		entry.RepoTags = []string{tag.String()}
		manifest = append(manifest, entry)
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := put("manifest.json", data); err != nil {
		return err
	}
	return archive.Close()
}

// putImage hands the configuration and the layers of an image to put, and says under which names.
func putImage(image v1.Image, put func(string, []byte) error) (tarball.Descriptor, error) {
	var entry tarball.Descriptor
	id, err := image.ConfigName()
	if err != nil {
		return entry, err
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return entry, err
	}
	entry.Config = id.Hex + ".json"
	if err := put(entry.Config, config); err != nil {
		return entry, err
	}
	layers, err := image.Layers()
	if err != nil {
		return entry, err
	}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			return entry, err
		}
		r, err := layer.Compressed()
		if err != nil {
			return entry, err
		}
		data, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			return entry, err
		}
		name := digest.Hex + ".tar.gz"
		if err := put(name, data); err != nil {
			return entry, err
		}
		entry.Layers = append(entry.Layers, name)
	}
	return entry, nil
}
