package volumes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// file is one file of a projected volume. Mode holds permission bits.
type file struct {
	data []byte
	mode os.FileMode
	uid  *int64
}

// The names that make an update atomic: ..data is a link to the directory with the current version, and what users
// see are links through it.
const (
	dataLink = "..data"
	newLink  = "..data_tmp"
)

// project makes dir show exactly the files, whose names are relative paths, in one step: a reader sees the old version
// or the new one and never a mixture. Files that have not changed are not written. gid, if set, becomes the group of
// everything.
func project(dir string, files map[string]file, gid *int64) error {
	for name := range files {
		if err := checkName(name); err != nil {
			return err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	current, err := root.Readlink(dataLink)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if current != "" && same(root, current, files) {
		return links(root, files)
	}
	version, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	name := filepath.Base(version)
	if err := fill(root, name, files, gid); err != nil {
		return errors.Join(err, root.RemoveAll(name))
	}
	if err := root.Remove(newLink); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(name, newLink); err != nil {
		return err
	}
	if err := root.Rename(newLink, dataLink); err != nil {
		return err
	}
	if err := links(root, files); err != nil {
		return err
	}
	return sweep(root, name)
}

// checkName refuses names that leave the volume or meet the names used for updates.
func checkName(name string) error {
	if name == "" || filepath.IsAbs(name) || !filepath.IsLocal(name) {
		return fmt.Errorf("invalid path %q: must be relative and stay within the volume", name)
	}
	if strings.HasPrefix(name, "..") {
		return fmt.Errorf("invalid path %q: must not start with '..'", name)
	}
	return nil
}

// same reports whether the current version has exactly these files.
func same(root *os.Root, current string, files map[string]file) bool {
	count := 0
	err := fs.WalkDir(root.FS(), current, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(current, path)
		if err != nil {
			return err
		}
		want, ok := files[name]
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !ok || info.Mode().Perm() != want.mode || info.Size() != int64(len(want.data)) {
			return fs.ErrInvalid
		}
		got, err := root.ReadFile(path)
		if err != nil || !bytes.Equal(got, want.data) {
			return fs.ErrInvalid
		}
		count++
		return nil
	})
	return err == nil && count == len(files)
}

// fill writes the files into a directory of the volume.
func fill(root *os.Root, version string, files map[string]file, gid *int64) error {
	if err := root.Chmod(version, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(version, name)
		if parent := filepath.Dir(path); parent != version {
			if err := root.MkdirAll(parent, 0o755); err != nil {
				return err
			}
		}
		if err := root.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
		if err := root.Chmod(path, f.mode); err != nil { // the umask must not matter
			return err
		}
		if f.uid != nil {
			if err := root.Lchown(path, int(*f.uid), -1); err != nil {
				return err
			}
		}
	}
	if gid == nil {
		return nil
	}
	return fs.WalkDir(root.FS(), version, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := root.Lchown(path, -1, int(*gid)); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o440
		if d.IsDir() {
			mode |= 0o110 | os.ModeSetgid
		}
		return root.Chmod(path, mode)
	})
}

// links makes one visible link for each top-level name, and removes those of names that are gone.
func links(root *os.Root, files map[string]file) error {
	want := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		want[top] = true
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), ".."):
		case want[e.Name()]:
			delete(want, e.Name())
		default:
			if err := root.Remove(e.Name()); err != nil {
				return err
			}
		}
	}
	for name := range want {
		if err := root.Symlink(filepath.Join(dataLink, name), name); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes older versions, also such that a crash has left.
func sweep(root *os.Root, current string) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "..") && e.Name() != current {
			if err := root.RemoveAll(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// own gives a tree to a group as fsGroup promises: group access to files, and directories whose new files inherit the group. Links are
// not followed. With onRootMismatch the tree is left alone when its root is right already.
func own(dir string, gid int64, onRootMismatch bool) error {
	const files, dirs = 0o660, 0o770 | os.ModeSetgid
	if info, err := os.Lstat(dir); err == nil && onRootMismatch {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err == nil && int64(st.Gid) == gid &&
			info.Mode()&os.ModeSetgid != 0 && info.Mode().Perm()&0o770 == 0o770 {
			return nil
		}
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, int(gid)); err != nil {
			return err
		}
		if d.Type()&os.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode()&(os.ModePerm|os.ModeSticky|os.ModeSetgid|os.ModeSetuid) | files
		if d.IsDir() {
			mode |= dirs
		}
		return os.Chmod(path, mode)
	})
}
