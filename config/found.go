package config

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// found is a block of the file as decoded. The checks read it, and point into it.
type found struct {
	d      *decoder
	title  string // names the block in messages
	header hcl.Range
	values map[string]hcl.Range // by key: the place of its value
	hides  map[string]bool      // keys whose value must not appear in a message
	wrong  map[string]bool      // keys whose value was refused and reported
	blocks map[string]*found    // by title; the first of several
}

func (f *found) note(key string, at hcl.Range, fits bool) {
	if f.values == nil {
		f.values, f.wrong = map[string]hcl.Range{}, map[string]bool{}
	}
	f.values[key], f.wrong[key] = at, !fits
}

func (f *found) noteBlock(b *found) {
	if f.blocks == nil {
		f.blocks = map[string]*found{}
	}
	if f.blocks[b.title] == nil {
		f.blocks[b.title] = b
	}
}

// has reports whether the file gives the key, valid or not.
func (f *found) has(key string) bool {
	_, given := f.values[key]
	return given
}

// valid reports whether none of the keys was refused, so that they can be judged together.
func (f *found) valid(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(key string) bool { return f.wrong[key] })
}

// at returns the range of a key's value, or of the block's header if the file does not give the key.
func (f *found) at(key string) hcl.Range {
	if at, given := f.values[key]; given {
		return at
	}
	return f.header
}

// in returns an unnamed block inside f, or f itself if there is none, so that an error has a place.
func (f *found) in(name string) *found {
	if b := f.blocks[name]; b != nil {
		return b
	}
	return f
}

// need reports an error if the block has neither a key nor a block of that name.
func (f *found) need(name, hint string) {
	if f.d.broken || f.has(name) || f.blocks[name] != nil {
		return
	}
	f.d.fail(f.header, hint, "%s needs %s", f.title, name)
}

// fail reports an error in a key's value, unless one was reported already.
func (f *found) fail(key, hint, format string, args ...any) {
	if !f.wrong[key] {
		f.d.fail(f.at(key), hint, format, args...)
	}
}

// warn is fail for what is allowed but probably not intended.
func (f *found) warn(key, hint, format string, args ...any) {
	if !f.wrong[key] {
		f.d.note(hcl.DiagWarning, f.at(key), hint, fmt.Sprintf(format, args...))
	}
}
