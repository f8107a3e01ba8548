package phpsession

import (
	"slices"
	"strings"
)

// IsPattern reports whether a name of Rules.Cookies stands for several: '*' for any characters, '?' for one.
func IsPattern(name string) bool {
	return strings.ContainsAny(name, "*?")
}

// Names reports whether $_COOKIE has a cookie of this name, as the browser sends it, under one of r.Cookies.
func (r *Rules) Names(name []byte) bool {
	for _, want := range r.Cookies {
		if v, ok := r.newMatching(want, name); ok {
			if _, ok := v.match(name); ok {
				return true
			}
		}
	}
	return false
}

// newMatching returns the variable that a token of this name registers, if a name or pattern of Rules.Cookies stands
// for it.
func (r *Rules) newMatching(want string, name []byte) (variable, bool) {
	if IsPattern(want) {
		var scratch [64]byte
		base := variableName(scratch[:0], name)
		if len(base) == 0 || !matchPattern(want, base) {
			return variable{}, false
		}
		want = string(base)
	}
	v, _ := r.newVariable(want)
	return v, true
}

// fromPattern returns the first id among the cookies whose names match, in the order in which $_COOKIE has them. The
// header has no NUL.
func (r *Rules) fromPattern(header []byte, pattern string, unread *bool) (id []byte, found bool) {
	for _, v := range r.readMatching(header, pattern) {
		if v.kind != text {
			continue
		}
		if id, ok := r.idIn(v.name, decode(nil, v.value, false), unread); ok {
			return id, true
		}
	}
	return nil, false
}

// readMatching reads the cookies of the header into the variables that the pattern stands for. PHP counts tokens of
// all names, and a variable that is deleted and set again comes last. It takes one pass, whatever a visitor sends.
func (r *Rules) readMatching(header []byte, pattern string) (all []variable) {
	_, maxTokens := r.newVariable("")
	var at map[string]int // in all; made for the second variable
	for name, value := range cookies(header, maxTokens) {
		fresh, ok := r.newMatching(pattern, name)
		if !ok {
			continue
		}
		fresh.firstWins = true
		i, known := position(all, at, fresh.name)
		if !known {
			all = append(all, fresh)
		}
		v := &all[i]
		v.register(name, value)
		switch {
		case v.kind == unset:
			all = slices.Delete(all, i, i+1)
			at = nil
		case !known && at != nil:
			at[v.name] = i
		}
		if at == nil && len(all) > 1 {
			at = positions(all)
		}
	}
	return all
}

// position returns where the variable of a name is in all, or else where it would be appended.
func position(all []variable, at map[string]int, name string) (i int, known bool) {
	if at != nil {
		if i, known := at[name]; known {
			return i, true
		}
	} else if len(all) == 1 && all[0].name == name {
		return 0, true
	}
	return len(all), false
}

func positions(all []variable) map[string]int {
	at := make(map[string]int, len(all))
	for i := range all {
		at[all[i].name] = i
	}
	return at
}

// variableName appends the name of the variable that PHP makes of a token's name: what match compares, without keys.
func variableName(dst, name []byte) []byte {
	for len(name) > 0 && name[0] == ' ' {
		name = name[1:]
	}
	mayOpen := true
	for i, c := range name {
		if c == '[' && mayOpen {
			if i == 0 || slices.Contains(name[i:], ']') {
				return dst
			}
			mayOpen = false
		}
		if c == ' ' || c == '.' || c == '[' {
			c = '_'
		}
		dst = append(dst, c)
	}
	return dst
}

// matchPattern compares a name with a pattern. It goes back to the last '*' only, so it takes at most the product of
// the two lengths.
func matchPattern(pattern string, name []byte) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p, n = p+1, n+1
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
