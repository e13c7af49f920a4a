package logs

import (
	"bytes"
	"fmt"
	"time"
)

// line is one record of a log in the format of CRI (KEP-2227, "Log format"):
//
//	2016-10-06T00:17:09.669794202Z stdout F the text of a line
//	2016-10-06T00:17:09.669794203Z stderr P the beginning of a long li
type line struct {
	time   time.Time
	stream string
	// text ends with a newline unless the record is partial: the rest of the line is in the next record of its stream.
	text []byte
}

// Streams.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// parse takes a record apart. record ends with a newline; the text aliases it.
func parse(record []byte) (line, error) {
	var l line
	stamp, rest, ok := bytes.Cut(record, space)
	if !ok {
		return l, fmt.Errorf("timestamp is not found in log record %q", abbreviate(record))
	}
	var err error
	if l.time, err = time.Parse(time.RFC3339Nano, string(stamp)); err != nil {
		return l, fmt.Errorf("unexpected timestamp in log record %q", abbreviate(record))
	}
	stream, rest, ok := bytes.Cut(rest, space)
	switch {
	case ok && string(stream) == Stdout:
		l.stream = Stdout
	case ok && string(stream) == Stderr:
		l.stream = Stderr
	default:
		return l, fmt.Errorf("unexpected stream in log record %q", abbreviate(record))
	}
	tags, text, ok := bytes.Cut(rest, space)
	if !ok {
		return l, fmt.Errorf("tag is not found in log record %q", abbreviate(record))
	}
	if first, _, _ := bytes.Cut(tags, colon); string(first) == "P" {
		text = bytes.TrimSuffix(text, newline)
	}
	l.text = text
	return l, nil
}

var space, colon, newline = []byte{' '}, []byte{':'}, []byte{'\n'}

// abbreviate cuts a record to what an error should show.
func abbreviate(record []byte) []byte { return record[:min(len(record), 100)] }
