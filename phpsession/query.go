package phpsession

import "bytes"

// readQuery registers every field of the query string. Unlike a cookie, a field has its name decoded, counts even if
// its name is empty, and replaces what was there.
func (v *variable) readQuery(query []byte, maxTokens int) {
	var scratch [128]byte // for names, of which register keeps no part
	for len(query) > 0 {
		var token []byte
		token, query = cutToken(query, '&')
		if len(token) == 0 {
			continue
		}
		if maxTokens--; maxTokens < 0 {
			return
		}
		name, value := cutValue(token)
		v.register(cString(decode(scratch[:0], name, true)), value)
	}
}

// decode is PHP's rawurldecode, or with plus its urldecode. It returns src if there is nothing to decode, else it
// appends to dst. A '%' without two hex digits stays.
func decode(dst, src []byte, plus bool) []byte {
	if bytes.IndexByte(src, '%') < 0 && !(plus && bytes.IndexByte(src, '+') >= 0) {
		return src
	}
	if dst == nil {
		dst = make([]byte, 0, len(src))
	}
	for i := 0; i < len(src); i++ {
		c := src[i]
		switch {
		case c == '%' && i+2 < len(src) && isHex(src[i+1]) && isHex(src[i+2]):
			c = unhex(src[i+1])<<4 | unhex(src[i+2])
			i += 2
		case c == '+' && plus:
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
