package fcgi

import "sync"

// The sizes of buffers. A waiting request keeps the smallest that its head fits in, for as long as it waits;
// the largest holds any whole record with room to spare.
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

// buffer is bytes from a peer: b[:n] have come and are not done with.
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

// free gives the buffer back. Nothing may alias it any longer. A nil buffer is nothing to free.
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

// bytes are those that have come.
func (b *buffer) bytes() []byte { return b.b[:b.n] }

// space is where the next ones go.
func (b *buffer) space() []byte { return b.b[b.n:] }

// drop takes the first n bytes out, and moves the rest to the front.
func (b *buffer) drop(n int) { b.cut(0, n) }

// cut takes the n bytes at offset from out.
func (b *buffer) cut(from, n int) {
	copy(b.b[from:], b.b[from+n:b.n])
	b.n -= n
}

// grown returns a buffer of at least size bytes with the same bytes in it, and frees b if it is another.
func (b *buffer) grown(size int) *buffer {
	if size <= len(b.b) {
		return b
	}
	larger := newBuffer(max(size, 2*len(b.b))) // twice, so that what comes bit by bit is not copied each time
	larger.n = copy(larger.b, b.bytes())
	b.free()
	return larger
}
