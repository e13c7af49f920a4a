// Package logs reads the log files that a container runtime writes for CRI. In flow a file's path and what is wanted of
// it, out flows the text of the lines. Following is driven by inotify: nothing is read while nothing is written.
package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Options say what is wanted of a log (core/v1 PodLogOptions).
type Options struct {
	// TailLines is how many lines from the end to begin with; negative means all.
	TailLines int64
	// LimitBytes ends the output after so many bytes; negative means no limit.
	LimitBytes int64
	// Since leaves out what is older.
	Since time.Time
	// Timestamps puts its time before each line.
	Timestamps bool
	// Stream is Stdout, Stderr, or "" for both.
	Stream string
	// Running, if not nil, makes Read follow the log until Running returns false. It is asked after the runtime has
	// closed the file.
	Running func(context.Context) (bool, error)
}

// timestampFormat has a fixed width, so that lines align.
const timestampFormat = "2006-01-02T15:04:05.000000000Z07:00 "

// errLimit ends reading when Options.LimitBytes have been written.
var errLimit = errors.New("limit reached")

// Flusher is a writer that can be told to pass on what it holds back, such as an http.ResponseWriter.
type Flusher interface {
	io.Writer
	Flush()
}

// Read writes the log at path to w as o says, and flushes w when it has to wait for more. A record that is not in the
// format of CRI is an error if it is the first, and left out otherwise.
func Read(ctx context.Context, path string, o Options, w Flusher) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("failed to open log file %q: %w", path, err)
	}
	r := &reader{options: o, out: w, remain: o.LimitBytes, file: f, path: path}
	defer func() { r.file.Close() }()
	if err := r.seekTail(); err != nil {
		return fmt.Errorf("failed to tail %d lines of log file %q: %w", o.TailLines, path, err)
	}
	if o.Running == nil {
		err = r.finish()
	} else {
		err = r.follow(ctx)
	}
	if errors.Is(err, errLimit) {
		err = nil
	}
	w.Flush()
	return err
}

// reader is the state of one Read.
type reader struct {
	options Options
	out     Flusher
	remain  int64
	path    string
	file    *os.File
	buffer  *bufio.Reader
	// rest is a record of which the end has not been written yet.
	rest []byte
	// parsed says that a record was understood, inLine that the last text did not end with a newline.
	parsed, inLine bool
}

func (r *reader) seekTail() error {
	r.buffer = bufio.NewReaderSize(r.file, 32<<10)
	if r.options.TailLines < 0 {
		return nil
	}
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	start, err := tailStart(r.file, info.Size(), r.options.TailLines)
	if err != nil {
		return err
	}
	_, err = r.file.Seek(start, io.SeekStart)
	return err
}

// drain writes all complete records up to the end of the file.
func (r *reader) drain() error {
	for {
		record, err := r.buffer.ReadSlice('\n')
		if err == bufio.ErrBufferFull || (err == io.EOF && len(record) > 0) {
			r.rest = append(r.rest, record...)
			if err == io.EOF {
				return nil
			}
			continue
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("failed to read log file %q: %w", r.path, err)
		}
		if len(r.rest) > 0 {
			record = append(r.rest, record...)
			r.rest = r.rest[:0]
		}
		if err := r.write(record); err != nil {
			return err
		}
	}
}

// finish writes everything up to the end of the file, of which no more is expected; the last record may be cut off.
func (r *reader) finish() error {
	err := r.drain()
	if err == nil && len(r.rest) > 0 {
		if l, bad := parse(r.rest); bad == nil && len(l.text) > 0 {
			err = r.write(r.rest)
		}
		r.rest = r.rest[:0]
	}
	return err
}

// write writes one record as far as it is wanted.
func (r *reader) write(record []byte) error {
	l, err := parse(record)
	if err != nil {
		if !r.parsed {
			return fmt.Errorf("log file %q: %w", r.path, err)
		}
		return nil
	}
	r.parsed = true
	if l.time.Before(r.options.Since) || r.options.Stream != "" && l.stream != r.options.Stream {
		return nil
	}
	if r.options.Timestamps && !r.inLine {
		var stamp [len(timestampFormat) + 8]byte
		if err := r.put(l.time.AppendFormat(stamp[:0], timestampFormat)); err != nil {
			return err
		}
	}
	r.inLine = len(l.text) > 0 && l.text[len(l.text)-1] != '\n'
	return r.put(l.text)
}

// put writes text as far as the limit allows.
func (r *reader) put(text []byte) error {
	if r.options.LimitBytes < 0 {
		_, err := r.out.Write(text)
		return err
	}
	text = text[:min(int64(len(text)), r.remain)]
	n, err := r.out.Write(text)
	r.remain -= int64(n)
	if err == nil && r.remain <= 0 {
		err = errLimit
	}
	return err
}
