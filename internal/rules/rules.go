// Package rules tests the repository against its own rules: which packages may import which, that each is documented,
// and the style of its texts. It has tests only.
//
// The rules themselves are in docs/DESIGN.md and CONTRIBUTING.md.
package rules
