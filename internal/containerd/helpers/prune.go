package helpers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// version is how Unpack names directories, leftover how what it was killed in the middle of is named.
var (
	version  = regexp.MustCompile(`^[0-9a-f]{12}$`)
	leftover = regexp.MustCompile(`^\.(unpacking|damaged)-[0-9]+$`)
)

// leftoverAge is how old a leftover has to be to be nobody's work in progress.
const leftoverAge = time.Hour

// Prune removes what other versions of proa have unpacked beside current, a directory that Unpack returned, unless inUse
// says that a process runs from there. A directory that Unpack did not make is left alone, and so are its neighbours.
func Prune(current string, inUse func(dir string) (bool, error)) error {
	if !version.MatchString(filepath.Base(current)) {
		return nil
	}
	parent := filepath.Dir(current)
	entries, err := os.ReadDir(parent)
	if err != nil {
		return fmt.Errorf("looking for old helper executables: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		name, dir := entry.Name(), filepath.Join(parent, entry.Name())
		switch {
		case name == filepath.Base(current) || !entry.IsDir():
			continue
		case leftover.MatchString(name):
			info, err := entry.Info()
			if err != nil || time.Since(info.ModTime()) < leftoverAge {
				continue
			}
		case version.MatchString(name):
			used, err := inUse(dir)
			if err != nil || used {
				errs = append(errs, err)
				continue
			}
		default:
			continue
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
