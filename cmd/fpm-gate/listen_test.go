package main

import (
	"errors"
	"io/fs"
	"testing"
)

// A confined process can no longer read /etc/group once groupadd has replaced it. A reload then takes the ids that were
// found before, and only then: a name may get another id, or none.
func TestAnOwnerIsKnownWhenItCanNoLongerBeLookedUp(t *testing.T) {
	denied := &fs.PathError{Op: "open", Path: "/etc/group", Err: fs.ErrPermission}
	var k knownIDs
	for _, c := range []struct {
		what, name, found string
		err               error
		want              int // -1: an error
	}{
		{"an id", "33", "", errors.New("looked up"), 33},
		{"a name that was never found", "www-data", "", denied, -1},
		{"a name", "www-data", "33", nil, 33},
		{"the name, out of reach", "www-data", "", denied, 33},
		{"another name, out of reach", "nginx", "", denied, -1},
		{"the name with another id", "www-data", "34", nil, 34},
		{"that, out of reach", "www-data", "", denied, 34},
		{"the name, which is gone", "www-data", "", errors.New("unknown group"), -1},
	} {
		id, err := k.lookup(c.name, func(string) (string, error) { return c.found, c.err })
		if c.want < 0 && err == nil || c.want >= 0 && (err != nil || id != c.want) {
			t.Errorf("%s: got %d, %v, want %d", c.what, id, err, c.want)
		}
	}
}
