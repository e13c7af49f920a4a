// Package logs keeps the log files of containers within bounds and reads their ends.
//
// What flows in are files in the format of CRI (time, stream, tag, text on each line); what flows out are lines, and
// files that are renamed and compressed when they have grown.
package logs

import (
	"bytes"
	"io"
	"os"
)

// Tail gives the text of the last lines of a log, at most limit bytes of it.
func Tail(path string, lines int, limit int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	// A line has its time and stream before it, so that more is read than is kept.
	const overhead = 64
	length := min(size, int64(limit+lines*overhead))
	data := make([]byte, length)
	if _, err := f.ReadAt(data, size-length); err != nil && err != io.EOF {
		return ""
	}
	if length < size {
		_, data, _ = bytes.Cut(data, []byte("\n")) // a line that is cut in the middle cannot be read
	}
	var texts [][]byte
	for line := range bytes.Lines(data) {
		texts = append(texts, Text(line))
	}
	out := bytes.Join(texts[max(0, len(texts)-lines):], nil)
	return string(bytes.ToValidUTF8(out[max(0, len(out)-limit):], nil))
}

// Text is what a container wrote of one line of its log. A line that is not in the format is given as it is.
func Text(line []byte) []byte {
	rest := line
	var tag []byte
	for field := range 3 {
		var ok bool
		before := rest
		before, rest, ok = bytes.Cut(rest, []byte(" "))
		if !ok {
			return line
		}
		if field == 2 {
			tag = before
		}
	}
	if bytes.HasPrefix(tag, []byte("P")) {
		return bytes.TrimSuffix(rest, []byte("\n")) // goes on in the next line
	}
	return rest
}
