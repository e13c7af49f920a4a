// Command images writes the images of test/images/catalog as archives that `proa image load` takes.
//
//	go run ./test/images -o build/images [name...]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/proa-k8s/proa/test/images/catalog"
)

func main() {
	out := flag.String("o", "build/images", "directory to write to")
	list := flag.Bool("list", false, "list the names of the images")
	flag.Parse()
	if *list {
		for _, name := range catalog.Names() {
			fmt.Println(name)
		}
		return
	}
	names := flag.Args()
	if len(names) == 0 {
		names = catalog.Names()
	}
	for _, name := range names {
		if err := write(*out, name); err != nil {
			fmt.Fprintln(os.Stderr, "images:", err)
			os.Exit(1)
		}
	}
}

// write puts the archive in place by a rename, so that an interrupted run leaves none behind.
func write(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, name+".tar")
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := catalog.Write(name, f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Println(path)
	return os.Rename(f.Name(), path)
}
