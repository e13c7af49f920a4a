package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// output collects what Read writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
	// flushed is told when Read has to wait.
	flushed chan struct{}
}

func newOutput() *output { return &output{flushed: make(chan struct{}, 1000)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) Flush() {
	select {
	case o.flushed <- struct{}{}:
	default:
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// wait waits until the output is what is wanted.
func (o *output) wait(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for o.String() != want {
		select {
		case <-o.flushed:
		case <-timeout:
			t.Fatalf("got %q, want %q", o.String(), want)
		}
	}
}

const sample = `2024-01-01T00:00:01.000000001Z stdout F one
2024-01-01T00:00:02.5Z stderr F two
2024-01-01T00:00:03Z stdout P thr
2024-01-01T00:00:03.000000001Z stdout F ee
2024-01-01T00:00:04Z stdout F
2024-01-01T00:00:04Z stdout F:x four
2024-01-01T02:00:05+02:00 stderr F five
`

func TestRead(t *testing.T) {
	all := Options{TailLines: -1, LimitBytes: -1}
	with := func(change func(*Options)) Options {
		o := all
		change(&o)
		return o
	}
	tests := []struct {
		name    string
		log     string
		options Options
		want    string
		err     string
	}{
		{"all", sample, all, "one\ntwo\nthree\nfour\nfive\n", ""},
		{"empty", "", all, "", ""},
		{"tail 0", sample, with(func(o *Options) { o.TailLines = 0 }), "", ""},
		{"tail 2", sample, with(func(o *Options) { o.TailLines = 2 }), "four\nfive\n", ""},
		{"tail more than there is", sample, with(func(o *Options) { o.TailLines = 100 }), "one\ntwo\nthree\nfour\nfive\n", ""},
		{"since", sample, with(func(o *Options) { o.Since = time.Date(2024, 1, 1, 0, 0, 4, 0, time.UTC) }), "four\nfive\n", ""},
		{"limit", sample, with(func(o *Options) { o.LimitBytes = 6 }), "one\ntw", ""},
		{"limit 0", sample, with(func(o *Options) { o.LimitBytes = 0 }), "", ""},
		{"limit beyond", sample, with(func(o *Options) { o.LimitBytes = 1000 }), "one\ntwo\nthree\nfour\nfive\n", ""},
		{"stderr", sample, with(func(o *Options) { o.Stream = Stderr }), "two\nfive\n", ""},
		{"stdout", sample, with(func(o *Options) { o.Stream = Stdout }), "one\nthree\nfour\n", ""},
		{"timestamps", sample, with(func(o *Options) { o.Timestamps = true; o.TailLines = 5 }),
			"2024-01-01T00:00:03.000000000Z three\n2024-01-01T00:00:04.000000000Z four\n2024-01-01T02:00:05.000000000+02:00 five\n", ""},
		{"cut off", "2024-01-01T00:00:01Z stdout F one\n2024-01-01T00:00:01Z stdout F tw", all, "one\ntw", ""},
		{"cut off in the header", "2024-01-01T00:00:01Z stdout F one\n2024-01", all, "one\n", ""},
		{"no log", "hello\n", all, "", "timestamp is not found"},
		{"bad record within", "2024-01-01T00:00:01Z stdout F one\nrubbish\n2024-01-01T00:00:01Z stdout F two\n", all, "one\ntwo\n", ""},
		{"bad stream", "2024-01-01T00:00:01Z stdin F one\n", all, "", "unexpected stream"},
		{"long line", "2024-01-01T00:00:01Z stdout F " + strings.Repeat("x", 100_000) + "\n", all, strings.Repeat("x", 100_000) + "\n", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "0.log")
			if err := os.WriteFile(path, []byte(test.log), 0o600); err != nil {
				t.Fatal(err)
			}
			out := newOutput()
			err := Read(t.Context(), path, test.options, out)
			if out.String() != test.want {
				t.Errorf("got %q, want %q", out.String(), test.want)
			}
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got error %v, want %q", err, test.err)
			}
		})
	}
	if err := Read(t.Context(), filepath.Join(t.TempDir(), "none"), all, newOutput()); !os.IsNotExist(err) && err == nil {
		t.Errorf("reading nothing: %v", err)
	}
}

// TestTailStart compares with counting, across the borders of blocks.
func TestTailStart(t *testing.T) {
	for _, width := range []int{1, 7, 1000, 64<<10 - 1, 64 << 10, 64<<10 + 1} {
		text := strings.Repeat(strings.Repeat("x", width-1)+"\n", 5)
		for n := range int64(7) {
			got, err := tailStart(strings.NewReader(text), int64(len(text)), n)
			want := max(0, int64(len(text))-n*int64(width))
			if err != nil || got != want {
				t.Errorf("width %d, %d lines: got %d, %v, want %d", width, n, got, err, want)
			}
		}
	}
}

// TestFollow follows a log through growth, a record written in two parts, and rotation, to the end of its container.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	record := func(text string) string { return "2024-01-01T00:00:01Z stdout F " + text + "\n" }
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write(record("0") + record("1"))

	var running atomic.Bool
	var asked atomic.Int32
	running.Store(true)
	out := newOutput()
	done := make(chan error, 1)
	go func() {
		done <- Read(t.Context(), path, Options{TailLines: 1, LimitBytes: -1, Running: func(context.Context) (bool, error) {
			asked.Add(1)
			return running.Load(), nil
		}}, out)
	}()
	out.wait(t, "1\n")
	write(record("2"))
	out.wait(t, "1\n2\n")
	write(record("3")[:20])
	write(record("3")[20:])
	out.wait(t, "1\n2\n3\n")

	// Rotation as the kubelet and the runtime do it, with a line that still goes to the old file.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	next, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	write(record("4"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = next
	write(record("5"))
	out.wait(t, "1\n2\n3\n4\n5\n")

	// Many lines cause no questions about the container.
	before := asked.Load()
	want := out.String()
	for i := range 200 {
		write(record(fmt.Sprint(i)))
		want += fmt.Sprintln(i)
	}
	out.wait(t, want)
	if n := asked.Load() - before; n > maxPatience {
		t.Errorf("asked %d times whether the container runs, while it wrote", n)
	}

	write(record("last"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	running.Store(false)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("following does not end with the container")
	}
	if got := out.String(); got != want+"last\n" {
		t.Errorf("got %q", got)
	}
}

// TestFollowEnds when the reader goes away, and at once when the container has ended already.
func TestFollowEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte("2024-01-01T00:00:01Z stdout F one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := newOutput()
	o := Options{TailLines: -1, LimitBytes: -1, Running: func(context.Context) (bool, error) { return false, nil }}
	if err := Read(t.Context(), path, o, out); err != nil || out.String() != "one\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
	o.Running = func(context.Context) (bool, error) { return true, nil }
	ctx, cancel := context.WithCancelCause(t.Context())
	out = newOutput()
	done := make(chan error, 1)
	go func() { done <- Read(ctx, path, o, out) }()
	out.wait(t, "one\n")
	gone := fmt.Errorf("the reader has gone")
	cancel(gone)
	if err := <-done; err != gone {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for record := range strings.Lines(sample) {
		f.Add([]byte(record))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		l, err := parse(record)
		if err == nil && (l.stream != Stdout && l.stream != Stderr || !bytes.Contains(record, l.text)) {
			t.Errorf("parse(%q) = %+v", record, l)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(bytes.Repeat([]byte{1}, 40), "0.log")
	f.Fuzz(func(t *testing.T, buf []byte, base string) { decode(buf, base) })
}
