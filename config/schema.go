package config

import "slices"

// block describes a block of the file: the keys and blocks that it can have.
type block struct {
	keys   []key
	blocks []child
	check  func(*found) // judges what takes more than one value; nil: nothing to judge
}

// key is a row in a block's table.
type key struct {
	name string
	set  setter
}

// child is a block in a block. open is called for each one in the file, before it is decoded.
type child struct {
	name  string
	named bool // it has a name and can be repeated; else it can be there once
	open  func(name string) block
}

const (
	named   = true
	unnamed = false
)

func (b block) keyNames() (names []string) {
	for _, k := range b.keys {
		names = append(names, k.name)
	}
	return names
}

func (b block) blockNames() (names []string) {
	for _, c := range b.blocks {
		names = append(names, c.name)
	}
	return names
}

// blocksWith returns the titles of the blocks that have a key or a block of that name.
func blocksWith(b block, title, name string) (titles []string) {
	if slices.Contains(append(b.keyNames(), b.blockNames()...), name) {
		titles = append(titles, title)
	}
	for _, c := range b.blocks {
		titles = append(titles, blocksWith(c.open(""), c.name, name)...)
	}
	return titles
}

// allBlocks returns the names of all blocks inside a block.
func allBlocks(b block) (names []string) {
	for _, c := range b.blocks {
		names = append(append(names, c.name), allBlocks(c.open(""))...)
	}
	return names
}
