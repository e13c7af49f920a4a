package cluster

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
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

func TestMuchIsIdle(t *testing.T) {
	const mb = 1 << 20
	for _, tc := range []struct {
		inUse, idle, released uint64
		want                  bool
	}{
		{30 * mb, 20 * mb, 0, false},
		{30 * mb, 65 * mb, 0, true},
		{30 * mb, 300 * mb, 290 * mb, false},
		{400 * mb, 300 * mb, 0, false},
		{200 * mb, 300 * mb, 10 * mb, true},
	} {
		if got := muchIsIdle(&runtime.MemStats{HeapInuse: tc.inUse, HeapIdle: tc.idle, HeapReleased: tc.released}); got != tc.want {
			t.Errorf("%+v: %t", tc, got)
		}
	}
}

// Every collection is told, not only the first.
func TestWatchCollections(t *testing.T) {
	collected := make(chan struct{}, 1)
	watchCollections(t.Context(), collected)
	for round := range 3 {
		deadline := time.After(time.Minute)
		for told := false; !told; {
			runtime.GC()
			select {
			case <-collected:
				told = true
			case <-deadline:
				t.Fatalf("collection %d was not told", round)
			default:
			}
		}
	}
}
