package catalog

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// files is the contents of a layer: what is at each path (without a leading slash).
type files map[string]file

// file is a regular file, or a symbolic link if target is set, or a directory if the mode says so.
type file struct {
	mode   fs.FileMode
	data   []byte
	target string
}

func (f files) dir(name string, mode fs.FileMode) { f[name] = file{mode: mode | fs.ModeDir} }

func (f files) text(name, contents string) { f[name] = file{mode: 0o644, data: []byte(contents)} }

func (f files) link(name, target string) { f[name] = file{target: target} }

// layer packs the files, in order of their names and with nothing in it that changes from run to run.
func (f files) layer() (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(f.withParents())) {
		entry := f[name]
		h := &tar.Header{Name: name, Mode: int64(entry.mode.Perm()), Size: int64(len(entry.data))}
		switch {
		case entry.target != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, entry.target, 0o777
		case entry.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
			if entry.mode&fs.ModeSticky != 0 {
				h.Mode |= 0o1000
			}
		default:
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(entry.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
}

// withParents adds the directories that the names imply.
func (f files) withParents() files {
	for name := range maps.Clone(f) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := f[dir]; !ok {
				f.dir(dir, 0o755)
			}
		}
	}
	return f
}

// program compiles a Go program of this directory's parent without C and puts it at dest.
func (f files) program(name, dest string) error {
	temp, err := os.MkdirTemp("", "proa-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	out := filepath.Join(temp, name)
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", out,
		"github.com/proa-k8s/proa/test/images/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", name, err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	f[dest] = file{mode: 0o755, data: data}
	return nil
}

// busybox adds the machine's static busybox with a link for each of its applets in dir.
func (f files) busybox(dir string) error {
	const source = "/bin/busybox"
	data, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("%w (Debian package busybox-static)", err)
	}
	bin, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	for _, p := range bin.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically: install the Debian package busybox-static", source)
		}
	}
	applets, err := exec.Command(source, "--list").Output()
	if err != nil {
		return fmt.Errorf("listing the applets of busybox: %w", err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if name := path.Join(dir, applet); f[name].mode == 0 && f[name].target == "" {
			f.link(name, "busybox")
		}
	}
	f[path.Join(dir, "busybox")] = file{mode: 0o755, data: data}
	return nil
}

// installed adds an executable of this machine at its own path with the libraries that it is linked with, as far as
// they are below /usr (with links /lib, /lib64 to there, as Debian has them).
func (f files) installed(source, pkg string) error {
	if err := f.copy(source); err != nil {
		return fmt.Errorf("%w (Debian package %s)", err, pkg)
	}
	out, err := exec.Command("ldd", source).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", source, err)
	}
	for line := range strings.Lines(string(out)) {
		for field := range strings.FieldsSeq(line) {
			if strings.HasPrefix(field, "/") {
				if err := f.copy(field); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// copy adds a file of this machine. The path is normalised to be below /usr.
func (f files) copy(source string) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	dest := strings.TrimPrefix(path.Clean(source), "/")
	if !strings.HasPrefix(dest, "usr/") {
		dest = "usr/" + dest
	}
	f[dest] = file{mode: 0o755, data: data}
	return nil
}

// accounts adds the files that name users and groups, and an ordinary tree around them.
func (f files) accounts() {
	f.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
	f.text("etc/group", "root:x:0:\nnobody:x:65534:\n")
	f.text("etc/nsswitch.conf", "hosts: files dns\n")
	f.dir("root", 0o700)
	f.dir("tmp", 0o777|fs.ModeSticky)
	f.dir("var/tmp", 0o777|fs.ModeSticky)
}
