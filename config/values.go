package config

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// setter stores a key's value, or keeps the default and returns what is wrong.
type setter func(cty.Value) []fault

// fault is an error in a value. Its text follows the key's name: `must be at least 3s; got "500ms"`.
type fault struct {
	text, hint string
	element    int // index in a list; -1: the value itself
}

// withoutValue returns the fault without its value.
func (f fault) withoutValue() fault {
	f.text, _, _ = strings.Cut(f.text, "; got ")
	f.text += "; got " + hidden
	f.hint = ""
	return f
}

// kind is a type of value that is written as a string.
//
// A kind is a value in a table, so the tables of blocks.go read like the format that they define.
type kind[T any] struct {
	form string // follows "must be": `a path such as "/ping"`
	// parse returns errForm if the text does not have the form. Any other error follows the key's name: "must be at
	// least 3s".
	parse func(string) (T, error)
}

var errForm = errors.New("not of that form")

// formHint is errForm with a hint, a whole sentence.
type formHint string

func (h formHint) Error() string        { return string(h) }
func (h formHint) Is(target error) bool { return target == errForm }

// newFault returns the fault of a value: what it must be, and what was got instead.
func newFault(got cty.Value, err error, form string) fault {
	f := fault{text: err.Error(), element: -1}
	if errors.Is(err, errForm) {
		f.text = "must be " + form
		if h, ok := err.(formHint); ok {
			f.hint = string(h)
		}
	}
	f.text += "; got " + shownSafely(got)
	return f
}

// read parses a string. A null, as of a key that is set to null, does not have the form.
func (k kind[T]) read(v cty.Value) (t T, err error) {
	if v.IsNull() || v.Type() != cty.String {
		return t, errForm
	}
	return k.parse(v.AsString())
}

// setOne sets a single value.
func setOne[T any](to *T, k kind[T]) setter {
	return func(v cty.Value) []fault {
		t, err := k.read(v)
		if err != nil {
			return []fault{newFault(v, err, k.form)}
		}
		*to = t
		return nil
	}
}

// setFirst sets a list to a single value.
func setFirst[T any](to *[]T, k kind[T]) setter {
	return func(v cty.Value) []fault {
		var t T
		faults := setOne(&t, k)(v)
		if faults == nil {
			*to = []T{t}
		}
		return faults
	}
}

// setList sets a list whose elements must differ.
func setList[T comparable](to *[]T, k kind[T]) setter {
	return func(v cty.Value) (faults []fault) {
		if v.IsNull() || !(v.Type().IsTupleType() || v.Type().IsListType()) {
			return []fault{newFault(v, errForm, "a list, each element "+k.form)}
		}
		var list []T
		seen := map[T]bool{}
		for i, element := range v.AsValueSlice() {
			t, err := k.read(element)
			if err == nil && seen[t] {
				err = errors.New("must differ from the others")
			}
			if err != nil {
				f := newFault(element, err, k.form)
				f.element = i
				faults = append(faults, f)
				continue
			}
			list, seen[t] = append(list, t), true
		}
		if faults == nil {
			*to = list
		}
		return faults
	}
}

// setBool sets a bool. Like setInt, it accepts a string too, because env returns only strings.
func setBool(to *bool) setter {
	return func(v cty.Value) []fault {
		b, err := convert.Convert(v, cty.Bool)
		if err != nil || b.IsNull() {
			return []fault{newFault(v, errForm, "true or false")}
		}
		*to = b.True()
		return nil
	}
}

// unbounded is the largest int on every platform.
const unbounded = math.MaxInt32

// setInt sets a whole number. A string counts as one if HCL can convert it, because env returns only strings.
func setInt(to *int, least, most int) setter {
	return setNumber(to, least, most, "a whole number", strconv.Itoa, func(string) (int64, bool) { return 0, false })
}

// setSize sets a number of bytes.
func setSize(to *int, least, most int) setter {
	return setNumber(to, least, most, `a size such as "64KiB" or "1MiB", or a number of bytes`, sizeText, parseSize)
}

// setNumber sets an int from a number, or from a string that parse or HCL can convert to one. write formats the bounds.
func setNumber(to *int, least, most int, form string, write func(int) string, parse func(string) (int64, bool)) setter {
	return func(v cty.Value) []fault {
		n, err := whole(v, parse)
		switch {
		case err != nil:
		case n < int64(least) && most == unbounded:
			err = fmt.Errorf("must be at least %s", write(least))
		case n < int64(least) || n > int64(most):
			err = fmt.Errorf("must be from %s to %s", write(least), write(most))
		}
		if err != nil {
			return []fault{newFault(v, err, form)}
		}
		*to = int(n)
		return nil
	}
}

// whole returns the value of a whole number. A number too large for an int64 gives the largest one.
func whole(v cty.Value, parse func(string) (int64, bool)) (int64, error) {
	if !v.IsNull() && v.Type() == cty.String {
		if n, ok := parse(v.AsString()); ok {
			return n, nil
		}
	}
	v, err := convert.Convert(v, cty.Number)
	if err != nil || v.IsNull() || !v.AsBigFloat().IsInt() {
		return 0, errForm
	}
	n, _ := v.AsBigFloat().Int64() // at the bounds of int64 if it is beyond them, which no key allows
	return n, nil
}

// sizeForm has nine digits at most, so that no size overflows an int64.
var (
	sizeForm  = regexp.MustCompile(`^([0-9]{1,9})(B|KiB|MiB|GiB)$`)
	sizeUnits = []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
)

// parseSize parses a size with a unit. Units are powers of 1,024; "k" and "MB", which mean different things to
// different programs, are refused.
func parseSize(s string) (int64, bool) {
	m := sizeForm.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, _ := strconv.ParseInt(m[1], 10, 64)
	for _, u := range sizeUnits {
		if u.name == m[2] {
			n *= u.bytes
			break
		}
	}
	return n, true
}

// sizeText writes a size with the largest unit that divides it.
func sizeText(bytes int) string {
	for _, u := range sizeUnits {
		if int64(bytes)%u.bytes == 0 {
			return strconv.FormatInt(int64(bytes)/u.bytes, 10) + u.name
		}
	}
	return "" // not reached: every number is a multiple of 1
}

// longest bounds durations, so that sums cannot overflow.
const longest = 1000 * time.Hour

// atLeast and between are kinds of durations, bounds included.
func atLeast(least time.Duration) kind[time.Duration] {
	return between(least, longest)
}

func between(least, most time.Duration) kind[time.Duration] {
	return kind[time.Duration]{durationForm, func(s string) (time.Duration, error) {
		t, err := time.ParseDuration(s)
		switch {
		case err != nil || s == "0": // ParseDuration accepts a 0 without a unit
			return 0, errForm
		case t < least:
			return 0, fmt.Errorf("must be at least %s", durationText(least))
		case t > most:
			return 0, fmt.Errorf("must be at most %s", durationText(most))
		}
		return t, nil
	}}
}

const durationForm = `a string with a unit (ms, s, m, h), such as "10s" or "250ms"`

// wholeSeconds is the kind of retry_after: the header Retry-After has no fractions.
var wholeSeconds = kind[time.Duration]{durationForm, func(s string) (time.Duration, error) {
	t, err := atLeast(time.Second).parse(s)
	if err == nil && t%time.Second != 0 {
		return 0, errors.New("must be whole seconds")
	}
	return t, err
}}

// durationText returns t.String() without trailing zero units: 1h, not 1h0m0s.
func durationText(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// octal matches the permissions of a file. Setuid, setgid and sticky bits mean nothing on a socket.
var octal = regexp.MustCompile(`^0?[0-7]{3}$`)

var fileMode = kind[os.FileMode]{`a string of octal digits such as "0660"`, func(s string) (os.FileMode, error) {
	if !octal.MatchString(s) {
		return 0, errForm
	}
	mode, _ := strconv.ParseUint(s, 8, 32) // cannot fail: octal has seen it
	return os.FileMode(mode), nil
}}

// choice is the kind of a value that must be one of a few words.
func choice(words ...string) kind[string] {
	var literals []string
	for _, w := range words {
		literals = append(literals, strconv.Quote(w))
	}
	return kind[string]{alternatives(literals), func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", formHint(didYouMean(s, words))
		}
		return s, nil
	}}
}

// handlerName is a choice that knows why other handlers of PHP's are not among its words.
var handlerName = kind[string]{choice(HandlerAny, HandlerFiles, HandlerMemcached).form, func(s string) (string, error) {
	handler, err := choice(HandlerAny, HandlerFiles, HandlerMemcached).parse(s)
	if slices.Contains([]string{"redis", "rediscluster", "user", "memcache", "sqlite", "rdc"}, s) {
		err = formHint(fmt.Sprintf("Leave it at \"any\" for %s: the gate sees such sessions in PHP-FPM's workers.", s))
	}
	return handler, err
}}
