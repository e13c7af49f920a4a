package cluster

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

const (
	// leastRoom is how much may be allocated between two collections of a big heap at least.
	leastRoom = 128 << 20
	// busyRoom is how much may be allocated between two collections of a small heap while the process is busy. A burst of
	// pods on a fresh cluster would have it collect without end.
	busyRoom = 96 << 20
	// busyRate is how many bytes are allocated in a second by a process that is busy: what makes it collect before it
	// could be quiet.
	busyRate = busyRoom / 4
	// quietAfter is how long after a collection, if there is no other, the work is over that made the garbage. By then the
	// store has dropped the encodings that nobody asked for again.
	quietAfter = 8 * time.Second
	// worthReturning is how many bytes are worth the collection that it takes to give them back.
	worthReturning = 16 << 20
)

// keepSmall keeps the process as small as what it holds, until ctx ends. At the end of each collection it says how much may be
// allocated until the next one; and when there was none for a while, it gives back what the burst before has left: garbage,
// heap that is idle, pages of files. Nothing happens as long as nothing is collected, and the runtime collects an idle
// process every two minutes.
func keepSmall(ctx context.Context, log *slog.Logger) error {
	collected := make(chan struct{}, 1)
	watchCollections(ctx, collected)
	quiet := time.NewTimer(quietAfter)
	defer quiet.Stop()
	ours, settled := os.Getenv("GOGC") == "", uint64(0) // or somebody else has decided
	c := collector{percent: 100, at: time.Now()}
	if ours {
		defer debug.SetGCPercent(debug.SetGCPercent(c.percent))
	}
	for {
		select {
		case <-collected:
			if ours {
				c.tune(time.Now())
			}
			quiet.Reset(quietAfter)
		case <-quiet.C:
			if ours {
				c.tune(time.Now()) // it is busy no more
			}
			var err error
			if settled, err = giveBack(settled); err != nil {
				log.Warn("giving memory back after a burst", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// collector is how the garbage collector is set.
type collector struct {
	percent   int       // GOGC, as it is in force
	allocated uint64    // since the start of the process, when it was set
	at        time.Time // of that
}

// tune sets the collector to what the last collection has found, and to how much was allocated since it was set before.
func (c *collector) tune(now time.Time) {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(s)
	allocated := s[4].Value.Uint64()
	busy := isBusy(allocated-c.allocated, now.Sub(c.at))
	c.allocated, c.at = allocated, now
	want := collectorPercent(s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()+s[3].Value.Uint64(), busy)
	if diff := want - c.percent; diff*diff*100 < c.percent*c.percent { // within a tenth: setting it stops the world for a moment
		return
	}
	debug.SetGCPercent(want)
	c.percent = want
}

// isBusy says whether that many bytes in that time are those of a process that is busy.
func isBusy(allocated uint64, took time.Duration) bool {
	return float64(allocated) > busyRate*took.Seconds()
}

// collectorPercent is what to set GOGC to. A collection costs about as much as there is to be looked at, which the stored bytes,
// most of a big heap, are not: they have no pointers. So the room for garbage follows what has pointers, and is never more than
// what GOGC=100 would give; but a busy process has some room also when its heap is small. What a list of everything allocates
// should not take many collections: hence the least room. All room is given back when it is quiet. roots are stacks and
// global variables, which count where the percentage is applied.
func collectorPercent(live, scanned, roots uint64, busy bool) int {
	base := max(1<<20, live+roots)
	most := base
	if busy {
		most = max(most, busyRoom)
	}
	room := min(most, max(2*scanned, leastRoom))
	return int(max(10, 100*room/base))
}

// giveBack gives memory back if there is enough of it. settled is what was live when it last looked at all of the heap; it
// returns what that is now.
func giveBack(settled uint64) (uint64, error) {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	live := s[0].Value.Uint64()
	if isWorthReturning(settled, live, s[1].Value.Uint64(), s[2].Value.Uint64()) {
		debug.FreeOSMemory()
		metrics.Read(s)
		live = s[0].Value.Uint64()
		settled = live
	}
	settled = min(settled, live)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return settled, err
	}
	if mapped := residentFile(string(status)); mapped > leastMapped {
		return settled, dropCleanPages()
	}
	return settled, nil
}

// isWorthReturning decides whether to collect for the sake of what was allocated since the last collection, of what was live
// then and was not before, as encodings are that nobody asks for any more, and of what is idle: more than an idle process has, and
// not next to nothing of the heap.
func isWorthReturning(settled, live, allocated, idle uint64) bool {
	garbage := allocated - min(allocated, live)
	doubtful := live - min(live, settled)
	return garbage+doubtful+idle > max(worthReturning, live/16)
}

// leastMapped is how many bytes of files the process may have mapped and touched before they are taken out. A program that works
// needs 60 MB of itself; the store's file can be many times that, and all of it is touched in time.
const leastMapped = 96 << 20

// residentFile reads how much of files is resident out of proc_pid_status(5), in bytes.
func residentFile(status string) uint64 {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			kb, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// watchCollections has each end of a garbage collection told, until ctx ends: an object that nobody uses is found by each of
// them.
func watchCollections(ctx context.Context, collected chan<- struct{}) {
	type canary struct{ _ *int }
	runtime.AddCleanup(&canary{}, func(context.Context) {
		if ctx.Err() != nil {
			return
		}
		select {
		case collected <- struct{}{}:
		default:
		}
		watchCollections(ctx, collected)
	}, ctx)
}
