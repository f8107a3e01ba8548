package fcgi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
)

// Params are the name-value pairs of a request as they came: whole params records, one after the other. The zero value
// has no pairs.
type Params struct {
	records []byte
}

// ParseParams checks that records contains whole params records of whole name-value pairs. PHP-FPM reads each record by
// itself and drops the connection if a pair spans two, so that is an error here too. The Params alias records.
func ParseParams(records []byte) (Params, error) {
	for rest := records; len(rest) > 0; {
		if len(rest) < headerLen {
			return Params{}, fmt.Errorf("%w: the header of a params record is cut short", ErrMalformed)
		}
		h := ParseHeader(rest)
		if h.Len() > len(rest) {
			return Params{}, fmt.Errorf("%w: a params record is cut short", ErrMalformed)
		}
		for content := rest[headerLen : headerLen+h.ContentLength]; len(content) > 0; {
			_, _, n, err := pair(content)
			if err != nil {
				return Params{}, err
			}
			content = content[n:]
		}
		rest = rest[h.Len():]
	}
	return Params{records: records}, nil
}

// All yields the pairs in their order. Names and values alias the request's buffer, and are valid as long as it is. A
// name can be repeated: PHP uses the last pair.
func (p Params) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for rest := p.records; len(rest) > 0; {
			h := ParseHeader(rest)
			for content := rest[headerLen : headerLen+h.ContentLength]; len(content) > 0; {
				name, value, n, err := pair(content)
				if err != nil || !yield(name, value) {
					return
				}
				content = content[n:]
			}
			rest = rest[h.Len():]
		}
	}
}

// Get returns the value of name as PHP will see it: of the last pair with that name, up to its first NUL. It returns
// nil if there is none.
func (p Params) Get(name string) []byte {
	var found []byte
	for n, value := range p.All() {
		if string(n) == name {
			found = CString(value)
		}
	}
	return found
}

// CString returns a value up to its first NUL, where a C string ends. The result is never nil.
func CString(value []byte) []byte {
	if i := bytes.IndexByte(value, 0); i >= 0 {
		return value[:i:i]
	}
	if value == nil {
		return []byte{}
	}
	return value
}

// AppendPair appends one name-value pair (section 3.4).
func AppendPair[N, V string | []byte](b []byte, name N, value V) []byte {
	b = appendLength(b, len(name))
	b = appendLength(b, len(value))
	b = append(b, name...)
	return append(b, value...)
}

// appendParams appends name-value pairs as records of a params stream, each of whole pairs. For no pairs it appends no
// record, because an empty one would end the stream.
func appendParams(b []byte, id uint16, pairs []byte) []byte {
	for len(pairs) > maxContent {
		n := 0
		for {
			_, _, size, err := pair(pairs[n:])
			if err != nil || n+size > maxContent {
				break
			}
			n += size
		}
		if n == 0 {
			return b
		}
		b = AppendRecord(b, TypeParams, id, pairs[:n])
		pairs = pairs[n:]
	}
	return AppendStream(b, TypeParams, id, pairs)
}

// pair parses the name-value pair at the start of b, and returns its length in bytes.
func pair(b []byte) (name, value []byte, n int, err error) {
	nameLen, i, ok := length(b)
	if !ok {
		return nil, nil, 0, fmt.Errorf("%w: the length of a name is cut short", ErrMalformed)
	}
	valueLen, j, ok := length(b[i:])
	if !ok {
		return nil, nil, 0, fmt.Errorf("%w: the length of a value is cut short", ErrMalformed)
	}
	start := i + j
	// Both lengths are under 2^31, so the sum cannot overflow an int of 64 bits.
	end := start + nameLen + valueLen
	if end > len(b) {
		return nil, nil, 0, fmt.Errorf("%w: name-value pair of %d bytes is cut short by its record, which holds %d",
			ErrMalformed, end-start, len(b)-start)
	}
	return b[start : start+nameLen], b[start+nameLen : end : end], end, nil
}

// length parses the length of a name or value: one byte, or four with the top bit set (section 3.4).
func length(b []byte) (length, n int, ok bool) {
	if len(b) >= 1 && b[0] < 0x80 {
		return int(b[0]), 1, true
	}
	if len(b) < 4 {
		return 0, 0, false
	}
	return int(binary.BigEndian.Uint32(b) &^ (1 << 31)), 4, true
}

func appendLength(b []byte, n int) []byte {
	if n < 0x80 {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n)|1<<31)
}
