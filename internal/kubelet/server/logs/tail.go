package logs

import (
	"bytes"
	"io"
)

// tailStart returns the offset in r, which is size bytes long, at which the last n lines begin. A last line without a
// newline is not counted as one: it is still being written.
func tailStart(r io.ReaderAt, size, n int64) (int64, error) {
	const block = 64 << 10
	if n == 0 {
		return size, nil
	}
	buf := make([]byte, min(block, size))
	found := int64(0)
	for end := size; end > 0; {
		start := max(0, end-block)
		part := buf[:end-start]
		if _, err := r.ReadAt(part, start); err != nil && err != io.EOF {
			return 0, err
		}
		for {
			i := bytes.LastIndexByte(part, '\n')
			if i < 0 {
				break
			}
			// The newline that ends the n-th line from the end is found first, the one before that line is what counts.
			if found == n {
				return start + int64(i) + 1, nil
			}
			found++
			part = part[:i]
		}
		end = start
	}
	return 0, nil
}
