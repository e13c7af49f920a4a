package cluster

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestCollectorPercent(t *testing.T) {
	const mb = 1 << 20
	for _, tc := range []struct {
		name                 string
		live, scanned, roots uint64
		busy                 bool
		want                 int
	}{
		{"nothing yet", 0, 0, 0, false, 100},
		{"small: as by default", 20 * mb, 15 * mb, 2 * mb, false, 100},
		{"middling: as by default", 100 * mb, 30 * mb, 4 * mb, false, 100},
		{"big, of bytes: the least room", 256 * mb, 40 * mb, 0, false, 50},
		{"bigger, of bytes", 1000 * mb, 100 * mb, 0, false, 20},
		{"big, of pointers", 200 * mb, 190 * mb, 0, false, 100},
		{"huge, of bytes", 8000 * mb, 100 * mb, 0, false, 10},
		{"busy, nothing yet", 0, 0, 0, true, 9600},
		{"busy, small", 28 * mb, 20 * mb, 4 * mb, true, 300},
		{"busy, as large as the room", 96 * mb, 20 * mb, 0, true, 100},
		{"busy, big, of bytes", 256 * mb, 40 * mb, 0, true, 50},
	} {
		if got := collectorPercent(tc.live, tc.scanned, tc.roots, tc.busy); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestIsBusy(t *testing.T) {
	for _, tc := range []struct {
		allocated uint64
		took      time.Duration
		want      bool
	}{
		{0, time.Second, false},
		{25 << 20, 2 * time.Minute, false},
		{25 << 20, 200 * time.Millisecond, true},
		{busyRoom, 3 * time.Second, true},
		{busyRoom, quietAfter, false}, // the collector has settled by then: its room must not come again by itself
	} {
		if got := isBusy(tc.allocated, tc.took); got != tc.want {
			t.Errorf("%d bytes in %v: %t", tc.allocated, tc.took, got)
		}
	}
}

func TestIsWorthReturning(t *testing.T) {
	const mb = 1 << 20
	for _, tc := range []struct {
		name                           string
		settled, live, allocated, idle uint64
		want                           bool
	}{
		{"idle", 20 * mb, 20 * mb, 30 * mb, 5 * mb, false},
		{"garbage", 20 * mb, 20 * mb, 40 * mb, 5 * mb, true},
		{"idle heap", 20 * mb, 20 * mb, 20 * mb, 100 * mb, true},
		{"little of a big heap", 400 * mb, 400 * mb, 415 * mb, 10 * mb, false},
		{"some of a big heap", 400 * mb, 400 * mb, 420 * mb, 10 * mb, true},
		{"swept meanwhile", 400 * mb, 400 * mb, 390 * mb, 20 * mb, false},
		{"what may have died since", 230 * mb, 430 * mb, 435 * mb, 5 * mb, true},
		{"less than before", 400 * mb, 100 * mb, 105 * mb, 5 * mb, false},
	} {
		if got := isWorthReturning(tc.settled, tc.live, tc.allocated, tc.idle); got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

func TestResidentFile(t *testing.T) {
	if got := residentFile("Name:\tproa\nRssAnon:\t  100 kB\nRssFile:\t   61388 kB\n"); got != 61388<<10 {
		t.Errorf("%d", got)
	}
	if got := residentFile("Name:\tproa\n"); got != 0 {
		t.Errorf("%d without the line", got)
	}
}

// What is measured by name is there under that name, and the percentage that it leads to is the one in force.
func TestTune(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	ballast := make([]byte, 512<<20)
	c := collector{percent: 100}
	tune := func(after time.Duration) int {
		runtime.GC()
		c.tune(c.at.Add(after))
		if now := debug.SetGCPercent(c.percent); now != c.percent {
			t.Errorf("%d%% is in force, not %d%%", now, c.percent)
		}
		return c.percent
	}
	got := tune(time.Hour)
	if got < 10 || got > 50 {
		t.Errorf("%d%% with 512 MB of bytes", got)
	}
	if again := tune(time.Hour); math.Abs(float64(again-got)) > 1 {
		t.Errorf("%d%%, then %d%% of the same", got, again)
	}
	runtime.KeepAlive(ballast)
	ballast = nil
	if after := tune(time.Hour); after != 100 {
		t.Errorf("%d%%, and %d%% without the ballast", got, after)
	}
	garbage := make([]byte, 32<<20)
	runtime.KeepAlive(garbage)
	garbage = nil
	if busy := tune(time.Second); busy <= 100 {
		t.Errorf("%d%% when busy", busy)
	}
	if quiet := tune(time.Hour); quiet != 100 {
		t.Errorf("%d%% when quiet", quiet)
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
