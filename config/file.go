package config

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// file is a config being decoded, with what its checks must remember from block to block.
type file struct {
	*Config
	listens []place // all addresses to listen on
	dials   []place // all upstream addresses
}

// place is an address and its place in the file.
type place struct {
	address netaddr.Addr
	at      hcl.Range
}

func newFile() *file {
	return &file{Config: defaultConfig()}
}

// listening returns the first address to listen on that meets a, by a test of the two.
func (f *file) listening(a netaddr.Addr, meets func(listen, a netaddr.Addr) bool) (first place, found bool) {
	for _, l := range f.listens {
		if meets(l.address, a) {
			return l, true
		}
	}
	return place{}, false
}

// as says which address a place has, if it is not the same as a: " as on line 3", or ", and line 3 has ...".
func (p place) as(a netaddr.Addr) string {
	if p.address == a {
		return fmt.Sprintf(" as on line %d", p.at.Start.Line)
	}
	return fmt.Sprintf(", and %q on line %d", p.address, p.at.Start.Line)
}
