package helpers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"
)

// bundle makes what hack/helpers embeds.
func bundle(t *testing.T, contents map[string]string) fstest.MapFS {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	files, m := fstest.MapFS{}, Manifest{Inputs: "x"}
	for name, data := range contents {
		sum := sha256.Sum256([]byte(data))
		m.Files = append(m.Files, File{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
		files[name+".zst"] = &fstest.MapFile{Data: enc.EncodeAll([]byte(data), nil)}
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	files[ManifestName] = &fstest.MapFile{Data: raw}
	return files
}

var small = map[string]string{"a": "#!/bin/sh\necho a\n", "b": strings.Repeat("b", 100_000)}

func checkUnpacked(t *testing.T, dir string) {
	t.Helper()
	for name, want := range small {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(data) != want {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
	if out, err := exec.Command(filepath.Join(dir, "a")).Output(); err != nil || string(out) != "a\n" {
		t.Errorf("running a: %q, %v", out, err)
	}
}

func TestUnpack(t *testing.T) {
	files, dir := bundle(t, small), t.TempDir()
	var group sync.WaitGroup
	results := make([]string, 8)
	for i := range results {
		group.Go(func() {
			var err error
			if results[i], err = unpack(files, dir); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, r := range results {
		if r != results[0] {
			t.Fatalf("different directories: %v", results)
		}
	}
	checkUnpacked(t, results[0])
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}

	// What is there is left alone.
	before, err := os.Stat(filepath.Join(results[0], "b"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unpack(files, dir); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(filepath.Join(results[0], "b"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("unpacked again: %v", err)
	}
}

func TestUnpackRepairs(t *testing.T) {
	files, dir := bundle(t, small), t.TempDir()
	target, err := unpack(files, dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"cut off":        func() error { return os.Truncate(filepath.Join(target, "b"), 7) },
		"missing":        func() error { return os.Remove(filepath.Join(target, "a")) },
		"not executable": func() error { return os.Chmod(filepath.Join(target, "a"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			again, err := unpack(files, dir)
			if err != nil || again != target {
				t.Fatal(again, err)
			}
			checkUnpacked(t, target)
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	swap := func(name string, data []byte) fstest.MapFS {
		files := bundle(t, small)
		files[name] = &fstest.MapFile{Data: data}
		return files
	}
	other := bundle(t, map[string]string{"b": strings.Repeat("c", 100_000)})
	longer := bundle(t, map[string]string{"b": strings.Repeat("b", 100_001)})
	tests := []struct {
		name  string
		files fs.FS
		want  string
	}{
		{"nothing embedded", fstest.MapFS{"README": {}}, "helper executables are not embedded: build with make"},
		{"empty manifest", swap(ManifestName, []byte("{}")), "not embedded"},
		{"broken manifest", swap(ManifestName, []byte("{")), "parsing the manifest"},
		{"path in manifest", swap(ManifestName, []byte(`{"files":[{"name":"../x","size":1,"sha256":"`+strings.Repeat("0", 64)+`"}]}`)), "bad entry"},
		{"wrong contents", swap("b.zst", other["b.zst"].Data), "does not match its manifest"},
		{"too long", swap("b.zst", longer["b.zst"].Data), "does not match its manifest"},
		{"cut off", swap("b.zst", other["b.zst"].Data[:9]), "decompressing"},
		{"no zstd", swap("b.zst", []byte("hello, world")), "decompressing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := unpack(test.files, dir)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("left behind: %v", entries)
			}
		})
	}
}

// TestEmbedded runs what is really embedded.
func TestEmbedded(t *testing.T) {
	dir, err := Unpack(t.TempDir())
	if errors.Is(err, errNotEmbedded) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{Runc: "libseccomp", Shim: "containerd-shim-runc-v2", Pause: "pause 1"} {
		arg := "-v"
		if out, err := exec.Command(filepath.Join(dir, name), arg).Output(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s %s: %q, %v", name, arg, out, err)
		}
	}
	data, err := Read(Pause)
	if err != nil {
		t.Fatal(err)
	}
	if onDisk, err := os.ReadFile(filepath.Join(dir, Pause)); err != nil || !bytes.Equal(data, onDisk) {
		t.Errorf("Read differs from what is unpacked: %v", err)
	}
	if _, err := Read("nonsense"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading what is not there: %v", err)
	}
}

// TestPrune removes old versions that nobody runs and old leftovers, and nothing else.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	current := filepath.Join(dir, "0123456789ab")
	for _, name := range []string{"0123456789ab", "aaaaaaaaaaaa", "bbbbbbbbbbbb", ".unpacking-1", ".damaged-2", ".unpacking-3", "other", "cccccccccccc0"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * leftoverAge)
	for _, name := range []string{".unpacking-1", ".damaged-2"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	inUse := func(d string) (bool, error) { return filepath.Base(d) == "bbbbbbbbbbbb", nil }
	left := func() (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return names
	}
	if err := Prune(filepath.Join(dir, "other"), inUse); err != nil || len(left()) != 8 {
		t.Errorf("pruned beside a directory of somebody else: %v, %v", left(), err)
	}
	if err := Prune(current, inUse); err != nil {
		t.Fatal(err)
	}
	if want := []string{".unpacking-3", "0123456789ab", "bbbbbbbbbbbb", "cccccccccccc0", "other"}; !slices.Equal(left(), want) {
		t.Errorf("left %v, want %v", left(), want)
	}
}
