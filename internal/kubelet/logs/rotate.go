package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	timeFormat = "20060102-150405"
	gzipSuffix = ".gz"
	tempSuffix = ".tmp"
)

// Rotate renames a log that has grown to maxSize bytes, compresses those that were renamed before, and removes the oldest
// so that maxFiles are left, counting the current one. reopen makes the runtime write to a new file. It does nothing
// while the log is small.
func Rotate(ctx context.Context, path string, maxSize int64, maxFiles int, reopen func(context.Context) error) error {
	info, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return reopen(ctx) // lost in the middle of an earlier rotation
		}
		return err
	}
	if info.Size() < maxSize {
		return nil
	}
	if err := tidy(path, maxFiles); err != nil {
		return err
	}
	rotated := path + "." + time.Now().Format(timeFormat)
	if err := os.Rename(path, rotated); err != nil {
		return err
	}
	if err := reopen(ctx); err != nil {
		return errors.Join(fmt.Errorf("reopening the log %s: %w", path, err), os.Rename(rotated, path))
	}
	return nil
}

// tidy compresses and removes files of earlier rotations. The newest is left as it is: someone may be reading it.
func tidy(path string, maxFiles int) error {
	all, err := filepath.Glob(path + ".*")
	if err != nil {
		return err
	}
	var old []string
	for _, f := range all {
		if strings.HasSuffix(f, tempSuffix) {
			if err := os.Remove(f); err != nil {
				return err
			}
			continue
		}
		old = append(old, f)
	}
	slices.Sort(old)
	// After this rotation there are the current file and the one that was just renamed.
	for len(old) > max(maxFiles-2, 0) {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	for _, f := range old {
		if strings.HasSuffix(f, gzipSuffix) {
			continue
		}
		if err := compress(f); err != nil {
			return fmt.Errorf("compressing the log %s: %w", f, err)
		}
	}
	return nil
}

func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	temp := path + tempSuffix
	out, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return err
	}
	if err = os.Rename(temp, path+gzipSuffix); err != nil {
		return err
	}
	return os.Remove(path)
}
