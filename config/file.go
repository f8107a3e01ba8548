package config

import (
	"github.com/hashicorp/hcl/v2"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// file is a config being decoded, with what its checks must remember from block to block.
type file struct {
	*Config
	listens map[netaddr.Addr]hcl.Range // by address to listen on: its place in the file
	dials   []place                    // all upstream addresses
}

// place is an address and its place in the file.
type place struct {
	address netaddr.Addr
	at      hcl.Range
}

func newFile() *file {
	return &file{Config: defaultConfig(), listens: map[netaddr.Addr]hcl.Range{}}
}
