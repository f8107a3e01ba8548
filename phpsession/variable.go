package phpsession

import (
	"bytes"
	"strings"
)

// variable is the value of $_COOKIE or $_GET under one name while PHP reads the input, token by token. The values under
// other names do not matter and are not kept.
type variable struct {
	name       string
	firstWins  bool // for cookies, the first string stays: browsers send the more specific path first
	maxNesting int

	kind   kind
	value  []byte  // if kind is text; not decoded
	arrays *arrays // if kind is array
}

type kind int

const (
	unset kind = iota
	text
	array
)

// register processes a token as PHP does: it may set the variable, leave it or delete it.
func (v *variable) register(name, value []byte) {
	for len(name) > 0 && name[0] == ' ' {
		name = name[1:]
	}
	brackets, ok := v.match(name)
	switch {
	case !ok:
	case brackets != nil:
		v.registerArray(name, brackets)
	case v.kind == unset || !v.firstWins:
		v.kind, v.value = text, value
	}
}

// match reports whether PHP stores a token of this name under v.name. If the name makes it an array, match returns its
// "[key][key]…". PHP replaces ' ', '.' and '[', which a PHP variable's name cannot contain, with '_'; but a '[' only if
// no ']' follows anywhere.
func (v *variable) match(name []byte) (brackets []byte, ok bool) {
	if len(name) == 0 || name[0] == '[' {
		return nil, false
	}
	mayOpen := true
	for i, c := range name {
		if c == '[' && mayOpen {
			if bytes.IndexByte(name[i:], ']') >= 0 {
				return name[i:], i == len(v.name) && !forbidden(v.name, name)
			}
			mayOpen = false
		}
		if c == ' ' || c == '.' || c == '[' {
			c = '_'
		}
		if i >= len(v.name) || v.name[i] != c {
			return nil, false
		}
	}
	return nil, len(name) == len(v.name) && !forbidden(v.name, name)
}

// forbidden reports whether a name or key starts with a prefix that browsers protect although the name as sent does
// not: "..Host-sid" must not pass for "__Host-sid".
func forbidden(key string, name []byte) bool {
	for _, prefix := range [...]string{"__Host-", "__Secure-"} {
		if strings.HasPrefix(key, prefix) && !bytes.HasPrefix(name, []byte(prefix)) {
			return true
		}
	}
	return false
}

// registerArray makes the variable an array, whatever it was. A name with too many brackets deletes the variable, but
// only if PHP gets that far: a forbidden key, or an append to a full array, ends the token and leaves the array.
func (v *variable) registerArray(name, brackets []byte) {
	if v.kind != array {
		v.kind, v.arrays = array, newArrays()
	}
	at, key := root, []byte(nil)
	for level := 1; len(brackets) > 0 && brackets[0] == '['; level++ {
		if level > v.maxNesting {
			v.kind = unset
			return
		}
		next, rest, closed := cutKey(brackets)
		if !closed {
			break
		}
		if level > 1 { // the first key belongs to the variable's own array, which exists
			if forbidden(string(key), name) {
				return
			}
			var ok bool
			if at, ok = v.arrays.descend(at, key); !ok {
				return
			}
		}
		key, brackets = next, rest
	}
	// PHP stores nothing under a forbidden key. That makes no difference here, as no name can lead through it.
	v.arrays.store(at, key)
}

// cutKey splits "[key]rest". The key is empty if PHP appends: for "[]", also with one white space between.
func cutKey(brackets []byte) (key, rest []byte, closed bool) {
	end := bytes.IndexByte(brackets, ']')
	if end < 0 {
		return nil, nil, false
	}
	key, rest = brackets[1:end], brackets[end+1:]
	if len(key) == 1 && isSpace(key[0]) {
		key = nil
	}
	return key, rest, true
}
