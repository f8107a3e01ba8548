package phpsession

import (
	"bytes"
	"strings"
)

// A variable is what $_COOKIE or $_GET holds under one name while PHP reads the input, token by
// token. What they hold under other names never matters, so it is not kept.
type variable struct {
	name       string
	firstWins  bool // cookies: the first string stays, the more specific path comes first
	maxNesting int

	kind   kind
	value  []byte  // of a text, not yet decoded
	arrays *arrays // of an array
}

type kind int

const (
	unset kind = iota
	text
	array
)

// register does with a token what PHP does: it may set the variable, leave it, or delete it.
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

// match tells whether PHP stores a token of this name under v.name, and returns the name's
// "[key][key]…" if that makes it an array. PHP has no use for ' ', '.' and '[' in a name, since
// they could not stand in the name of a PHP variable, and turns them into '_'. A '[' counts as
// one of those only if no ']' follows anywhere.
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

// forbidden tells whether a name or key begins with a prefix that browsers protect, and the name
// as it was sent does not: "..Host-sid" must not pass for "__Host-sid".
func forbidden(key string, name []byte) bool {
	for _, prefix := range [...]string{"__Host-", "__Secure-"} {
		if strings.HasPrefix(key, prefix) && !bytes.HasPrefix(name, []byte(prefix)) {
			return true
		}
	}
	return false
}

// registerArray makes the variable an array, whatever it was. A name with too many brackets
// deletes it, but only if PHP gets that far: a forbidden key, or an append that finds its array
// full, ends the token and leaves the array.
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
		if level > 1 { // the first key stands in the variable's own array, which is there
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
	// PHP stores nothing under a forbidden key. That makes no difference: no name leads through it.
	v.arrays.store(at, key)
}

// cutKey splits "[key]rest". The key is empty if PHP appends: for "[]", and for one white space in it.
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
