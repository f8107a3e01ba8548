package phpsession

import (
	"math"
	"strconv"
)

// arrays are the nested PHP arrays under one variable, to the extent that they decide whether an append succeeds. PHP
// appends after the highest index, so an element at the largest possible index makes its array full. A name that is
// nested too deep, and so should delete the variable, then leaves an array, and PHP goes on to the query string instead
// of the next cookie. Only an attacker who tries to evade the lock sends such cookies, so this must be exact.
type arrays struct {
	next     []int64         // by array: the index of the next append; math.MinInt64 stands for 0
	elements map[element]int // the array in an element, or root for a string
}

// element is a place in an array. PHP turns the key "7" into the index 7, and no other key means that index, so the key
// as a string identifies both.
type element struct {
	array int
	key   string
}

// root is the variable's own array, which is in no element.
const root = 0

func newArrays() *arrays {
	return &arrays{next: []int64{math.MinInt64}, elements: map[element]int{}}
}

// descend returns the array in an element, and creates it in place of anything else. It returns false if the key is
// empty, which appends, and the array is full.
func (a *arrays) descend(array int, key []byte) (inner int, ok bool) {
	place, ok := a.place(array, key)
	if !ok {
		return 0, false
	}
	inner = a.elements[place]
	if inner == root {
		inner = len(a.next)
		a.next = append(a.next, math.MinInt64)
		a.elements[place] = inner
	}
	return inner, true
}

// store puts a string into an element.
func (a *arrays) store(array int, key []byte) {
	if place, ok := a.place(array, key); ok {
		a.elements[place] = root
	}
}

// place returns the element for a key, and marks its index as used.
func (a *arrays) place(array int, key []byte) (element, bool) {
	if len(key) > 0 {
		if index, ok := parseIndex(string(key)); ok {
			a.take(array, index)
		}
		return element{array, string(key)}, true
	}
	index := a.next[array]
	if index == math.MinInt64 {
		index = 0
	}
	place := element{array, strconv.FormatInt(index, 10)}
	if _, full := a.elements[place]; full {
		return element{}, false // full: only the largest index can be in use before an append reaches it
	}
	a.take(array, index)
	return place, true
}

// take makes the next append follow an index, except the largest one, which nothing follows.
func (a *arrays) take(array int, index int64) {
	if index < math.MaxInt64 {
		index++
	}
	a.next[array] = max(a.next[array], index)
}

// parseIndex parses a key that PHP takes for an integer, which is one written as PHP would print it.
func parseIndex(key string) (index int64, ok bool) {
	index, err := strconv.ParseInt(key, 10, 64)
	return index, err == nil && strconv.FormatInt(index, 10) == key
}
