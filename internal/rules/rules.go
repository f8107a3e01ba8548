// Package rules holds the repository to its own rules: which packages may import which, and that each says what it
// is for. It has tests only.
//
// The rules themselves stand in docs/DESIGN.md and CONTRIBUTING.md.
package rules
