package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestReadOnlyFileMappings(t *testing.T) {
	var smaps strings.Builder
	for _, m := range []struct {
		line      string
		anonymous int
	}{
		{"00400000-00500000 r-xp 00000000 fe:00 1 /usr/bin/proa", 0},
		{"00500000-00600000 r--p 00100000 fe:00 1 /usr/bin/proa", 0},
		{"00600000-00700000 r--p 00200000 fe:00 1 /usr/bin/proa", 12}, // relocated
		{"00700000-00800000 rw-p 00200000 fe:00 1 /usr/bin/proa", 0},
		{"00800000-00900000 rw-p 00000000 00:00 0", 0},
		{"7f0000000000-7f0000010000 r--s 00000000 fe:00 2 /data/etcd/db", 0},
		{"7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0 [vdso]", 0},
	} {
		fmt.Fprintf(&smaps, "%s\nSize: 1024 kB\nAnonymous: %d kB\nVmFlags: rd ex mr mw me sd\n", m.line, m.anonymous)
	}
	got, err := readOnlyFileMappings(strings.NewReader(smaps.String()))
	want := []addressRange{{0x400000, 0x500000}, {0x500000, 0x600000}, {0x7f0000000000, 0x7f0000010000}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
}

// The program goes on after its own pages were dropped.
func TestDropCleanPages(t *testing.T) {
	if err := dropCleanPages(); err != nil {
		t.Fatal(err)
	}
	_ = make([]byte, 64<<20) // with cgo, by a function of a library
	if got := strings.Repeat("still here ", 2); got != "still here still here " {
		t.Errorf("got %q", got)
	}
}
