package helpers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// ManifestName is the name of the manifest among the embedded files.
const ManifestName = "manifest.json"

// Manifest lists the embedded helper executables. hack/helpers writes it.
type Manifest struct {
	// Inputs is a digest over everything the executables were built from, so that a build with the same inputs can be
	// skipped.
	Inputs string `json:"inputs"`
	Files  []File `json:"files"`
}

// File is one helper executable; it is embedded as <Name>.zst.
type File struct {
	Name string `json:"name"`
	// Size in bytes and SHA256 in hexadecimal digits are those of the executable before compression.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// errNotEmbedded is returned when the tree was compiled without the helpers.
var errNotEmbedded = errors.New("helper executables are not embedded: build with make")

// readManifest reads and checks the manifest in files.
func readManifest(files fs.FS) (*Manifest, []byte, error) {
	raw, err := fs.ReadFile(files, ManifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errNotEmbedded
	} else if err != nil {
		return nil, nil, fmt.Errorf("reading the manifest of the helper executables: %w", err)
	}
	m := new(Manifest)
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, nil, fmt.Errorf("parsing the manifest of the helper executables: %w", err)
	}
	if len(m.Files) == 0 {
		return nil, nil, errNotEmbedded
	}
	for _, f := range m.Files {
		if f.Name == "" || f.Name != filepath.Base(f.Name) || f.Name[0] == '.' || len(f.SHA256) != 64 || f.Size <= 0 {
			return nil, nil, fmt.Errorf("the manifest of the helper executables has a bad entry: %+v", f)
		}
	}
	return m, raw, nil
}
