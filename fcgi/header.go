package fcgi

import (
	"bytes"
	"iter"
	"slices"
	"strings"
)

const (
	// maxHeader is the longest header block that the hook can see.
	maxHeader = 64 << 10
	// maxHeld bounds how much of a response is held back until its header block is complete, including stderr, headers
	// of records and padding.
	maxHeld = 128 << 10
)

// ResponseHeader is the header block of a response, as the script made it.
type ResponseHeader struct {
	block  []byte // its lines, including the empty one at the end
	edited bool
}

// All yields the names and values of the header lines. They are valid until the hook returns or edits.
func (h *ResponseHeader) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for line := range bytes.Lines(h.block) {
			name, value, ok := bytes.Cut(line, []byte(":"))
			if ok && !yield(name, bytes.TrimSpace(value)) {
				return
			}
		}
	}
}

// Remove removes all lines of that name.
func (h *ResponseHeader) Remove(name string) {
	kept := make([]byte, 0, len(h.block))
	for line := range bytes.Lines(h.block) {
		if n, _, ok := bytes.Cut(line, []byte(":")); ok && strings.EqualFold(string(n), name) {
			h.edited = true
			continue
		}
		kept = append(kept, line...)
	}
	h.block = kept
}

// Add adds a line at the start of the block.
func (h *ResponseHeader) Add(name, value string) {
	h.block = slices.Concat([]byte(name+": "+value+"\r\n"), h.block)
	h.edited = true
}

// replace replaces the first n bytes of b with records, and returns their length.
func replace(b **buffer, n int, records []byte) int {
	after := (*b).b[n:(*b).n]
	grown := newBuffer(len(records) + len(after))
	grown.n = copy(grown.b, records)
	grown.n += copy(grown.b[grown.n:], after)
	(*b).free()
	*b = grown
	return len(records)
}

// stdoutStream is the part of a response's stdout that was read so far.
type stdoutStream struct {
	content []byte // aliases the records if it is in a single one
	ended   bool
}

// splitStdout splits whole records into the content of stdout, and all other records.
func splitStdout(records []byte) (stdout stdoutStream, others []byte) {
	for rest := records; len(rest) > 0; {
		h := ParseHeader(rest)
		switch {
		case h.Type != TypeStdout:
			others = append(others, rest[:h.Len()]...)
		case h.ContentLength == 0:
			stdout.ended = true
		case stdout.content == nil:
			stdout.content = rest[headerLen : headerLen+h.ContentLength : headerLen+h.ContentLength]
		default:
			stdout.content = append(stdout.content, rest[headerLen:headerLen+h.ContentLength]...)
		}
		rest = rest[h.Len():]
	}
	return stdout, others
}

// headerEnd returns the length of the header block at the start of content, or 0 if it is incomplete.
func headerEnd(content []byte) int {
	for i := 0; ; {
		n := bytes.IndexByte(content[i:], '\n')
		if n < 0 {
			return 0
		}
		line := content[i : i+n]
		i += n + 1
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return i
		}
	}
}
