// Package helpers carries the executables that must be processes of their own: runc, the containerd shim, the CNI
// plugins and pause. They are built from the modules that go.mod names by hack/helpers and embedded compressed; Unpack
// puts them into a directory of the cluster, Read returns one of them.
package helpers

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// Names of the embedded executables.
const (
	Runc  = "runc"
	Shim  = "containerd-shim-runc-v2"
	Pause = "pause"
)

//go:embed all:embedded
var embedded embed.FS

// embeddedDir is where the embedded files are in embedded.
const embeddedDir = "embedded"

// Unpack makes sure that the helper executables are in a directory below dir and returns that directory. Its name is
// derived from the executables' digests, so another version is unpacked beside the one that running shims use.
//
// It is safe to call from several processes at once and to be killed at any moment: the directory appears by one rename,
// complete and synced. An unpacked directory whose files are missing or have the wrong size is made anew.
func Unpack(dir string) (string, error) {
	files, err := fs.Sub(embedded, embeddedDir)
	if err != nil {
		return "", err
	}
	return unpack(files, dir)
}

// Read returns the embedded executable with the given name.
func Read(name string) ([]byte, error) {
	files, err := fs.Sub(embedded, embeddedDir)
	if err != nil {
		return nil, err
	}
	m, _, err := readManifest(files)
	if err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		if f.Name == name {
			var buf bytes.Buffer
			buf.Grow(int(f.Size))
			err := decompress(files, f, &buf)
			return buf.Bytes(), err
		}
	}
	return nil, fmt.Errorf("helper executable %q: %w", name, fs.ErrNotExist)
}

func unpack(files fs.FS, dir string) (string, error) {
	m, raw, err := readManifest(files)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	target := filepath.Join(dir, hex.EncodeToString(sum[:6]))
	if complete(m, target) {
		return target, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("unpacking the helper executables: %w", err)
	}
	temp, err := os.MkdirTemp(dir, ".unpacking-")
	if err != nil {
		return "", fmt.Errorf("unpacking the helper executables: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", fmt.Errorf("unpacking the helper executables: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(4)
	for _, f := range m.Files {
		group.Go(func() error { return write(files, f, filepath.Join(temp, f.Name)) })
	}
	if err := group.Wait(); err != nil {
		return "", fmt.Errorf("unpacking the helper executables: %w", err)
	}
	if err := replace(m, temp, target); err != nil {
		return "", fmt.Errorf("unpacking the helper executables: %w", err)
	}
	return target, syncDir(dir)
}

// complete says whether target holds every file in its full size.
func complete(m *Manifest, target string) bool {
	for _, f := range m.Files {
		info, err := os.Stat(filepath.Join(target, f.Name))
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size || info.Mode().Perm() != 0o755 {
			return false
		}
	}
	return true
}

// replace renames temp to target. When another caller was first, theirs is taken; when what is there is damaged, it is
// moved out of the way (executables in use stay usable by those who run them).
func replace(m *Manifest, temp, target string) error {
	err := os.Rename(temp, target)
	if err == nil || complete(m, target) {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	damaged, err := os.MkdirTemp(filepath.Dir(target), ".damaged-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(damaged)
	if err := os.Rename(target, filepath.Join(damaged, "old")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(temp, target); err != nil && !complete(m, target) {
		return err
	}
	return nil
}

// write decompresses f into a new executable file at path and syncs it: a rename must not become durable before the
// contents are.
func write(files fs.FS, f File, path string) error {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	err = decompress(files, f, out)
	return errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close())
}

// decompress writes the contents of f to out and checks them against the manifest.
func decompress(files fs.FS, f File, out io.Writer) error {
	in, err := files.Open(f.Name + ".zst")
	if err != nil {
		return fmt.Errorf("helper executable %s: %w", f.Name, err)
	}
	defer in.Close()
	d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("helper executable %s: %w", f.Name, err)
	}
	defer d.Close()
	digest := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, digest), io.LimitReader(d, f.Size+1))
	if err != nil {
		return fmt.Errorf("decompressing helper executable %s: %w", f.Name, err)
	}
	if n != f.Size || hex.EncodeToString(digest.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("helper executable %s does not match its manifest", f.Name)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
