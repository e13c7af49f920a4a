package store

import "testing"

func TestWindow(t *testing.T) {
	var w window
	w.from = 9
	add := func(rev int64, garbage int) { w.add(&event{rev: rev, prev: &Object{value: make([]byte, garbage)}}) }
	revs := func(after int64) (out []int64) {
		w.after(after, func(e *event) { out = append(out, e.rev) })
		return out
	}
	for rev := int64(10); rev < 10+windowCount; rev++ {
		add(rev, 10)
	}
	if w.from != 9 || w.n != windowCount || len(revs(9)) != windowCount {
		t.Errorf("from %d, %d events", w.from, w.n)
	}
	add(10+windowCount, 10)
	add(11+windowCount, 10)
	if w.from != 11 || w.n != windowCount || revs(w.from)[0] != 12 {
		t.Errorf("from %d, %d events", w.from, w.n)
	}
	if got := revs(10 + windowCount); len(got) != 1 || got[0] != 11+windowCount {
		t.Errorf("after the last but one: %v", got)
	}
	if got := revs(11 + windowCount); got != nil {
		t.Errorf("after the last: %v", got)
	}
	// Big states are dropped earlier, but never the last few.
	for rev := int64(20 + windowCount); rev < 20+windowCount+3*windowMin; rev++ {
		add(rev, 1<<20)
	}
	if w.n != windowMin+1 || w.bytes != w.n<<20 {
		t.Errorf("%d events of %d bytes", w.n, w.bytes)
	}
	w.expire(w.at(w.n-1).at + 301)
	if w.n != 0 || w.bytes != 0 || w.ring != nil || w.from != 20+windowCount+3*windowMin-1 {
		t.Errorf("%d events are left, from %d", w.n, w.from)
	}
	add(1<<20, 1)
	if got := revs(w.from); len(got) != 1 {
		t.Errorf("after that: %v", got)
	}
}
