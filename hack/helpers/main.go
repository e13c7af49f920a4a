// Command helpers builds the helper executables that proa embeds (internal/containerd/helpers) from the modules at the
// versions in go.mod, the shim from cmd/containerd-shim-runc-v2, and pause from hack/pause.c, and writes them compressed, with a manifest, into the directory that
// is embedded. It does nothing if what is there was built from the same inputs.
//
// Run it in the root of the repository: go run ./hack/helpers
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/proa-k8s/proa/internal/containerd/helpers"
)

// tool is a Go program among the tool dependencies.
type tool struct {
	name, pkg string
	// cgo says that the program needs C (runc: its namespace setup and libseccomp); it is linked statically then.
	cgo bool
}

const cniPlugins = "github.com/containernetworking/plugins/plugins/"

var tools = []tool{
	{name: helpers.Runc, pkg: "github.com/opencontainers/runc", cgo: true},
	{name: helpers.Shim, pkg: "github.com/proa-k8s/proa/cmd/containerd-shim-runc-v2"},
	{name: "bridge", pkg: cniPlugins + "main/bridge"},
	{name: "loopback", pkg: cniPlugins + "main/loopback"},
	{name: "host-local", pkg: cniPlugins + "ipam/host-local"},
	{name: "portmap", pkg: cniPlugins + "meta/portmap"},
	{name: "bandwidth", pkg: cniPlugins + "meta/bandwidth"},
}

// pauseFlags make pause a static executable of a few pages without a C library.
var pauseFlags = []string{"-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
	"-fno-asynchronous-unwind-tables", "-fno-pie", "-no-pie", "-s", "-Wall", "-Wextra", "-Werror",
	"-Wl,--build-id=none", "-Wl,-z,norelro", "-Wl,-z,noexecstack"}

func main() {
	out := flag.String("o", "internal/containerd/helpers/embedded", "directory to write to")
	force := flag.Bool("f", false, "build even if nothing changed")
	flag.Parse()
	if err := run(*out, *force); err != nil {
		fmt.Fprintln(os.Stderr, "helpers:", err)
		os.Exit(1)
	}
}

func run(out string, force bool) error {
	inputs, err := digestInputs()
	if err != nil {
		return err
	}
	if !force && upToDate(out, inputs) {
		return nil
	}
	temp, err := os.MkdirTemp("", "proa-helpers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)

	manifest := helpers.Manifest{Inputs: inputs}
	// The manifest is removed first and written last, so that an interrupted run is not taken for a finished one. What an
	// older version built goes too: all that is in the directory is embedded.
	old, err := filepath.Glob(filepath.Join(out, "*.zst"))
	if err != nil {
		return err
	}
	for _, path := range append(old, filepath.Join(out, helpers.ManifestName)) {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	for _, t := range tools {
		if err := t.build(filepath.Join(temp, t.name)); err != nil {
			return err
		}
		if err := add(&manifest, filepath.Join(temp, t.name), out); err != nil {
			return err
		}
	}
	pause := filepath.Join(temp, helpers.Pause)
	if err := command(os.Environ(), cc(), append(pauseFlags, "-o", pause, "hack/pause.c")...); err != nil {
		return err
	}
	if err := add(&manifest, pause, out); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(manifest, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, helpers.ManifestName), append(raw, '\n'), 0o644)
}

// build compiles t to path.
func (t tool) build(path string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false"}
	env := os.Environ()
	if t.cgo {
		env = append(env, "CGO_ENABLED=1")
		args = append(args, "-tags", "seccomp netgo osusergo", "-ldflags", "-s -w -extldflags -static")
	} else {
		env = append(env, "CGO_ENABLED=0")
		args = append(args, "-ldflags", "-s -w")
	}
	return command(env, "go", append(args, "-o", path, t.pkg)...)
}

// add compresses the executable at path into out and lists it.
func add(m *helpers.Manifest, path, out string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	sum := sha256.Sum256(data)
	m.Files = append(m.Files, helpers.File{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	// A small window keeps the memory for decompression small; it makes the file larger by a few percent.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	packed := enc.EncodeAll(data, nil)
	fmt.Printf("%-24s %6.1f MB, compressed %5.1f MB\n", name, float64(len(data))/1e6, float64(len(packed))/1e6)
	return os.WriteFile(filepath.Join(out, name+".zst"), packed, 0o644)
}

// upToDate says whether out holds what was built from inputs.
func upToDate(out, inputs string) bool {
	raw, err := os.ReadFile(filepath.Join(out, helpers.ManifestName))
	if err != nil {
		return false
	}
	var m helpers.Manifest
	if json.Unmarshal(raw, &m) != nil || m.Inputs != inputs {
		return false
	}
	for _, f := range m.Files {
		if _, err := os.Stat(filepath.Join(out, f.Name+".zst")); err != nil {
			return false
		}
	}
	return true
}

// digestInputs returns a digest over what the executables are made from: the Go and C compilers, the versions of the
// modules that the tools need, the source of pause, and this program.
func digestInputs() (string, error) {
	h := sha256.New()
	pkgs := make([]string, len(tools))
	for i, t := range tools {
		pkgs[i] = t.pkg
	}
	for _, args := range [][]string{
		{"go", "env", "GOVERSION", "GOOS", "GOARCH", "GOAMD64", "GOARM64"},
		{cc(), "--version"},
		append([]string{"go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}} {{.Replace}}{{end}}"}, pkgs...),
	} {
		raw, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			return "", fmt.Errorf("%s: %w", strings.Join(args[:2], " "), err)
		}
		h.Write(raw)
	}
	sandbox, err := filepath.Glob("internal/containerd/sandbox/*.go")
	if err != nil {
		return "", err
	}
	for _, path := range append(sandbox, "hack/helpers/main.go", "hack/pause.c", "cmd/containerd-shim-runc-v2/main.go") {
		raw, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		h.Write(raw)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// cc is the C compiler; CC in the environment overrides it, for cross compilation too.
func cc() string {
	if cc := os.Getenv("CC"); cc != "" {
		return cc
	}
	return "gcc"
}

func command(env []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return nil
}
