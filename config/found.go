package config

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// found is one block of the file as it was found: what the checks ask and where they point.
type found struct {
	d      *decoder
	title  string // names the block in messages
	header hcl.Range
	values map[string]hcl.Range // where the given keys have their values
	hides  map[string]bool      // keys whose value no message may show
	wrong  map[string]bool      // keys whose value was refused and has its complaint already
	blocks map[string]*found    // by title; of two the first
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

// has tells whether the file gives the key, rightly or wrongly.
func (f *found) has(key string) bool {
	_, given := f.values[key]
	return given
}

// sound tells whether none of the keys was refused, so that they can be judged together.
func (f *found) sound(keys ...string) bool {
	return !slices.ContainsFunc(keys, func(key string) bool { return f.wrong[key] })
}

// at points at the value of a key, or at the block's header if the file does not give it.
func (f *found) at(key string) hcl.Range {
	if at, given := f.values[key]; given {
		return at
	}
	return f.header
}

// in returns an unnamed block within, or f itself if there is none, so that what it lacks is told
// of f.
func (f *found) in(name string) *found {
	if b := f.blocks[name]; b != nil {
		return b
	}
	return f
}

// need complains if the block has neither a key nor a block of that name.
func (f *found) need(name, hint string) {
	if f.d.broken || f.has(name) || f.blocks[name] != nil {
		return
	}
	f.d.fail(f.header, hint, "%s needs %s", f.title, name)
}

// fail complains about a key's value, unless that was refused already.
func (f *found) fail(key, hint, format string, args ...any) {
	if !f.wrong[key] {
		f.d.fail(f.at(key), hint, format, args...)
	}
}

// warn is fail for what is allowed but hardly meant.
func (f *found) warn(key, hint, format string, args ...any) {
	if !f.wrong[key] {
		f.d.note(hcl.DiagWarning, f.at(key), hint, fmt.Sprintf(format, args...))
	}
}
