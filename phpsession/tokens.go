package phpsession

import (
	"bytes"
	"iter"
)

// cookies yields the tokens of a cookie header that PHP registers, at most maxTokens of them. Names are not decoded:
// that was CVE-2020-7070.
func cookies(header []byte, maxTokens int) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for len(header) > 0 {
			var token []byte
			token, header = cutToken(header, ';')
			name, value := cutValue(token)
			name = trimSpace(name)
			if len(name) == 0 {
				continue // neither "; ;" nor "=x" counts
			}
			if maxTokens--; maxTokens < 0 || !yield(name, value) {
				return
			}
		}
	}
}

// cutToken returns the bytes before the first separator and those after it.
func cutToken(input []byte, separator byte) (token, rest []byte) {
	if end := bytes.IndexByte(input, separator); end >= 0 {
		return input[:end], input[end+1:]
	}
	return input, nil
}

// cutValue splits a token at its first '='. Without one its value is empty.
func cutValue(token []byte) (name, value []byte) {
	if eq := bytes.IndexByte(token, '='); eq >= 0 {
		return token[:eq], token[eq+1 : len(token) : len(token)]
	}
	return token, nil
}

// trimSpace cuts leading white space. Trailing white space is part of the name.
func trimSpace(name []byte) []byte {
	for len(name) > 0 && isSpace(name[0]) {
		name = name[1:]
	}
	return name
}

// isSpace is C's isspace in the locale that PHP runs in: no byte above 0x7f is a space.
func isSpace(c byte) bool {
	return c == ' ' || '\t' <= c && c <= '\r'
}

// cString returns b up to its first NUL, where a C string ends.
func cString(b []byte) []byte {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		return b[:end:end]
	}
	return b
}
