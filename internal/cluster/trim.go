package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trimAfter is how long after the start memory is given back that only the start needed.
const trimAfter = 10 * time.Second

// trimWhenSettled gives memory back once the start is over: garbage of the start, and pages of the program and of the store's
// file that were read once. A big program is touched all over by its packages' initialisation, by a few bytes here and there; what
// is needed again comes back from the page cache without reading the disk.
func trimWhenSettled(ctx context.Context, log *slog.Logger) error {
	select {
	case <-time.After(trimAfter):
	case <-ctx.Done():
		return nil
	}
	debug.FreeOSMemory()
	if err := dropCleanPages(); err != nil {
		log.Warn("giving memory back after the start", "error", err)
	}
	return nil
}

// dropCleanPages takes the pages of files that can't be written to through their mapping out of the process.
func dropCleanPages() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	ranges, err := readOnlyFileMappings(f)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		// Not unix.Madvise: its slice would be made from a number, which Go's rules for pointers forbid.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("mapping at %x: %w", r.start, errno)
		}
	}
	return nil
}

type addressRange struct{ start, end uintptr }

// readOnlyFileMappings reads proc_pid_smaps(5). A mapping that can't be written to now may have been before: the linker of a
// program that is not static writes addresses into some, and these pages are not what the file has.
func readOnlyFileMappings(r io.Reader) ([]addressRange, error) {
	var ranges []addressRange
	var candidate *addressRange
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && candidate != nil {
			ranges = append(ranges, *candidate)
		}
		if len(fields) < 5 || strings.HasSuffix(fields[0], ":") {
			continue
		}
		// address perms offset dev inode pathname
		candidate = nil
		if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") || strings.Contains(fields[1], "w") {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			return nil, err
		}
		end, err := strconv.ParseUint(to, 16, 64)
		if err != nil {
			return nil, err
		}
		candidate = &addressRange{uintptr(start), uintptr(end)}
	}
	return ranges, lines.Err()
}
