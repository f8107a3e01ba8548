package fcgi

import "sync"

// The sizes of buffers. A waiting request keeps the smallest one that its head fits into. The largest holds any whole
// record with room to spare.
const (
	smallBuffer  = 4 << 10
	middleBuffer = 16 << 10
	largeBuffer  = 128 << 10
)

var (
	smallBuffers  = sync.Pool{New: func() any { return &buffer{b: make([]byte, smallBuffer)} }}
	middleBuffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, middleBuffer)} }}
	largeBuffers  = sync.Pool{New: func() any { return &buffer{b: make([]byte, largeBuffer)} }}
)

// buffer holds bytes from a peer: b[:n] have been read and not yet processed.
type buffer struct {
	b []byte
	n int
}

// newBuffer returns an empty buffer of at least size bytes.
func newBuffer(size int) *buffer {
	switch {
	case size <= smallBuffer:
		return smallBuffers.Get().(*buffer)
	case size <= middleBuffer:
		return middleBuffers.Get().(*buffer)
	case size <= largeBuffer:
		return largeBuffers.Get().(*buffer)
	}
	return &buffer{b: make([]byte, size)}
}

// free returns the buffer to its pool. Nothing may alias it any longer. It does nothing for a nil buffer.
func (b *buffer) free() {
	if b == nil {
		return
	}
	b.n = 0
	switch len(b.b) {
	case smallBuffer:
		smallBuffers.Put(b)
	case middleBuffer:
		middleBuffers.Put(b)
	case largeBuffer:
		largeBuffers.Put(b)
	}
}

// bytes returns the unprocessed bytes.
func (b *buffer) bytes() []byte { return b.b[:b.n] }

// space returns the free space after them.
func (b *buffer) space() []byte { return b.b[b.n:] }

// drop removes the first n bytes, and moves the rest to the front.
func (b *buffer) drop(n int) { b.cut(0, n) }

// cut removes the n bytes at offset from.
func (b *buffer) cut(from, n int) {
	copy(b.b[from:], b.b[from+n:b.n])
	b.n -= n
}

// grown returns a buffer of at least size bytes with the same content. If that is not b, it frees b.
func (b *buffer) grown(size int) *buffer {
	if size <= len(b.b) {
		return b
	}
	larger := newBuffer(max(size, 2*len(b.b))) // double, so that small reads do not each copy
	larger.n = copy(larger.b, b.bytes())
	b.free()
	return larger
}
