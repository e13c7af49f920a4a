package logs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What is watched: that the file grows, that its writer closes it (at the end of the container and when the log is
// rotated), and that a file is put in its place.
const (
	fileEvents      = unix.IN_MODIFY | unix.IN_CLOSE_WRITE
	directoryEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR
)

// event is what happened since the last look.
type event struct {
	// grown: there may be more to read. closed: the writer closed the file. replaced: another file has its name.
	grown, closed, replaced bool
}

// follow writes the log until its container has ended and all of it is written, across rotations.
func (r *reader) follow(ctx context.Context) error {
	watch, err := newWatcher(r.path)
	if err != nil {
		return fmt.Errorf("failed to watch log file %q: %w", r.path, err)
	}
	defer watch.close()
	stop := context.AfterFunc(ctx, watch.close)
	defer stop()

	// The container may have ended before the watch began.
	check := true
	for {
		ended := false
		if check {
			running, err := r.options.Running(ctx)
			if err != nil {
				return err
			}
			ended = !running
		}
		if ended {
			return r.finish()
		}
		if err := r.drain(); err != nil {
			return err
		}
		r.out.Flush()
		var wait time.Duration
		if check {
			// The runtime closes the log slightly before it reports the end: look again soon, but not for ever. Where the
			// log was merely rotated, this is one more look.
			wait = watch.backoff()
		}
		e, err := watch.next(wait)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			check = true
			continue
		} else if err != nil {
			return fmt.Errorf("failed to watch log file %q: %w", r.path, err)
		}
		watch.note(e)
		check = !watch.spent() || watch.abandoned
		if e.replaced {
			if err := r.reopen(ctx, watch, e.closed); err != nil {
				return err
			}
		}
	}
}

// reopen finishes the file that was moved away, which the runtime may still write to until it has closed it, and goes on
// with the one that took its place.
func (r *reader) reopen(ctx context.Context, watch *watcher, closed bool) error {
	for !closed {
		e, err := watch.next(closeTimeout)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		closed = e.closed
	}
	if err := r.finish(); err != nil {
		return err
	}
	next, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // moved again; its successor will be noticed
	} else if err != nil {
		return fmt.Errorf("failed to open log file %q: %w", r.path, err)
	}
	r.file.Close()
	r.file = next
	r.buffer.Reset(next)
	return watch.file()
}

// watcher watches a file and its directory.
type watcher struct {
	inotify *os.File
	path    string
	// patience counts the looks at the container since the log was last closed.
	patience int
	// abandoned says that, as far as is known, nobody has the log open for writing: what is waited for is the end of the
	// container, of which the log will not tell.
	abandoned bool
	buf       [4096]byte
}

const (
	// maxPatience looks take about two seconds together.
	maxPatience = 12
	// abandonedPeriod is the time between further looks at a container that does not log any more.
	abandonedPeriod = 5 * time.Second
	// closeTimeout is how long the runtime may take from making the new log to closing the old one.
	closeTimeout = 250 * time.Millisecond
)

func newWatcher(path string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{inotify: os.NewFile(uintptr(fd), "inotify"), path: path, abandoned: true}
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), directoryEvents); err != nil {
		w.close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	if err := w.file(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// file watches the file that is at the path now.
func (w *watcher) file() error {
	var failed error
	raw, err := w.inotify.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Control(func(fd uintptr) {
		if _, err := unix.InotifyAddWatch(int(fd), w.path, fileEvents); err != nil && err != unix.ENOENT {
			failed = os.NewSyscallError("inotify_add_watch", err)
		}
	})
	return errors.Join(err, failed)
}

func (w *watcher) close() { w.inotify.Close() }

// note remembers what an event says about the writer of the log.
func (w *watcher) note(e event) {
	switch {
	case e.closed || e.replaced:
		w.patience, w.abandoned = 0, !e.replaced
	case e.grown:
		w.abandoned = false
	}
}

// backoff returns how long to wait before the container is looked at again, 0 for no more looks.
func (w *watcher) backoff() time.Duration {
	if w.spent() {
		if w.abandoned {
			return abandonedPeriod
		}
		return 0
	}
	w.patience++
	return min(time.Millisecond<<w.patience, 250*time.Millisecond)
}

func (w *watcher) spent() bool { return w.patience >= maxPatience }

// next waits for an event, for at most the given time unless that is 0.
func (w *watcher) next(wait time.Duration) (event, error) {
	var deadline time.Time
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	if err := w.inotify.SetReadDeadline(deadline); err != nil {
		return event{}, err
	}
	for {
		n, err := w.inotify.Read(w.buf[:])
		if err != nil {
			return event{}, err
		}
		if e := decode(w.buf[:n], filepath.Base(w.path)); e != (event{}) {
			return e, nil
		}
	}
}

// decode folds the records of inotify(7) that concern the file with the given base name.
func decode(buf []byte, base string) (e event) {
	for len(buf) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(buf[4:])
		size := min(int(binary.NativeEndian.Uint32(buf[12:])), len(buf)-unix.SizeofInotifyEvent)
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size]), "\x00")
		buf = buf[unix.SizeofInotifyEvent+size:]
		e.grown = e.grown || mask&(unix.IN_MODIFY|unix.IN_Q_OVERFLOW) != 0
		e.closed = e.closed || mask&(unix.IN_CLOSE_WRITE|unix.IN_Q_OVERFLOW) != 0
		e.replaced = e.replaced || mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 && name == base || mask&unix.IN_Q_OVERFLOW != 0
	}
	return e
}
