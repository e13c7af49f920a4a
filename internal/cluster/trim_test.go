package cluster

import (
	"slices"
	"strings"
	"testing"
)

func TestReadOnlyFileMappings(t *testing.T) {
	got, err := readOnlyFileMappings(strings.NewReader(`00400000-00500000 r-xp 00000000 fe:00 1 /usr/bin/proa
00500000-00600000 r--p 00100000 fe:00 1 /usr/bin/proa
00600000-00700000 rw-p 00200000 fe:00 1 /usr/bin/proa
00700000-00800000 rw-p 00000000 00:00 0
7f0000000000-7f0000010000 r--s 00000000 fe:00 2 /data/etcd/db
7ffc00000000-7ffc00001000 r-xp 00000000 00:00 0 [vdso]
`))
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
	if got := strings.Repeat("still here ", 2); got != "still here still here " {
		t.Errorf("got %q", got)
	}
}
