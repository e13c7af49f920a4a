package etcd

import (
	"fmt"
	"io"
	"os"
)

// writeFile writes r to path so that path is there whole or not at all. Only the owner may read it: it holds secrets.
func writeFile(path string, r io.Reader) error {
	f, err := os.OpenFile(path+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing a snapshot of etcd: %w", err)
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("writing a snapshot of etcd: %w", err)
	}
	return nil
}
