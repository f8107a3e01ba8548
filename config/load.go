package config

import (
	"fmt"
	"os"
	"strings"
)

// Load reads a file. An invalid file gives an *Error; a file that cannot be read gives the system's error.
func Load(filename string) (*Config, error) {
	src, err := os.ReadFile(filename)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return Parse(src, filename)
}

// Parse parses the text of a file; filename is for messages only. The error is always an *Error.
func Parse(src []byte, filename string) (*Config, error) {
	f := newFile()
	d := newDecoder(filename, newFile().block(), func(path string) { f.Files = append(f.Files, path) })
	if body := d.parse(src); body != nil {
		d.body(body, f.block(), &found{d: d, title: "the config", header: body.EndRange})
	}
	report := d.report()
	if report.errors() > 0 {
		return nil, &Error{report}
	}
	f.Warnings = report
	return f.Config, nil
}

// Default returns a config of one gate named "default" with only its two addresses set. An invalid address gives an
// *Error.
func Default(listen, upstream string) (*Config, error) {
	// The config is written out and parsed, so that flags pass the same checks as a file.
	const text = "gate \"default\" {\n  listen = %s\n  upstream {\n    address = %s\n  }\n}\n"
	return Parse(fmt.Appendf(nil, text, Quote(listen), Quote(upstream)), "--listen and --upstream")
}

var inQuotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "${", "$${", "%{", "%%{")

// Quote returns s as an HCL string.
func Quote(s string) string {
	return `"` + inQuotes.Replace(s) + `"`
}
