package phpsession

import (
	"math"
	"strconv"
)

// Arrays are the nested PHP arrays under one variable, as far as they decide whether an append
// finds a place. PHP appends behind the highest index, so an element at the last index of all
// makes its array full. A name that should delete the variable for its depth then leaves an
// array, and PHP goes on to the query string instead of taking the next cookie. Only somebody
// who looks for a way past the lock sends such cookies, so it has to be right.
type arrays struct {
	next     []int64         // of each array: the index of the next append; math.MinInt64 stands for 0
	elements map[element]int // the array that is in an element, or root for a string
}

// An element is a place in an array. PHP turns "7" into the index 7, and there is no other way to
// write that, so the key as a string will do for both.
type element struct {
	array int
	key   string
}

// root is the variable's own array. It is in no element.
const root = 0

func newArrays() *arrays {
	return &arrays{next: []int64{math.MinInt64}, elements: map[element]int{}}
}

// descend returns the array in an element, which replaces what else was there. It returns false
// if the key is empty, an append, and the array is full.
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

// place finds the element for a key and counts its index as taken.
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
		return element{}, false // only the last index can be taken before its turn
	}
	a.take(array, index)
	return place, true
}

// take moves the next append behind an index; behind the last one there is nothing.
func (a *arrays) take(array int, index int64) {
	if index < math.MaxInt64 {
		index++
	}
	a.next[array] = max(a.next[array], index)
}

// parseIndex reads a key that PHP takes for an integer: written as PHP would print it.
func parseIndex(key string) (index int64, ok bool) {
	index, err := strconv.ParseInt(key, 10, 64)
	return index, err == nil && strconv.FormatInt(index, 10) == key
}
