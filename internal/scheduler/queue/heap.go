package queue

// heap is a binary heap whose entries know where they are.
type heap struct {
	list []*Entry
	less func(a, b *Entry) bool
}

func (h *heap) push(e *Entry) {
	e.index = len(h.list)
	h.list = append(h.list, e)
	h.up(e.index)
}

func (h *heap) pop() *Entry {
	if len(h.list) == 0 {
		return nil
	}
	return h.remove(0)
}

func (h *heap) remove(i int) *Entry {
	e, last := h.list[i], len(h.list)-1
	h.swap(i, last)
	h.list[last] = nil
	h.list = h.list[:last]
	if i < last {
		h.fix(i)
	}
	return e
}

func (h *heap) fix(i int) {
	if !h.down(i) {
		h.up(i)
	}
}

func (h *heap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.list[i], h.list[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *heap) down(i int) (moved bool) {
	for {
		child := 2*i + 1
		if child >= len(h.list) {
			return moved
		}
		if right := child + 1; right < len(h.list) && h.less(h.list[right], h.list[child]) {
			child = right
		}
		if !h.less(h.list[child], h.list[i]) {
			return moved
		}
		h.swap(i, child)
		i, moved = child, true
	}
}

func (h *heap) swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.list[i].index, h.list[j].index = i, j
}
