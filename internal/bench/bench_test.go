package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestASmokeRunFillsTheDocument runs the whole benchmark, as short as it can be.
func TestASmokeRunFillsTheDocument(t *testing.T) {
	for _, m := range measures {
		rigtest.Need(t, m.needs...)
	}
	file := filepath.Join(t.TempDir(), "docs", "BENCHMARKS.md")
	if err := run(t.Context(), options{quick: true, out: file}, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| CPU per request, no keep-alive ", "| CPU per request, keep-alive on both sides ",
		"| Requests per second ", "| CPU per request, all together ",
		"| Other visitors' p99, files ", "| Updates lost, phpredis ",
		"| Hand-off of a session, php-memcached ",
		"| Memory of a waiting request, of 500 ", "| Memory left of each, ",
		"| Speed of a response of 20 MB ",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the document lacks %q", want)
		}
	}
	for _, not := range []string{"Not measured", "NaN", "Inf", "<no value>"} {
		if strings.Contains(string(text), not) {
			t.Errorf("the document has %q in it", not)
		}
	}
}

func TestFlagsSayWhatToMeasureAndWrite(t *testing.T) {
	tests := []struct {
		name, args string
		only       int
		out        string
	}{
		{"nothing: all, into the document", "", 0, documentFile},
		{"a smoke run writes nothing", "-quick", 0, ""},
		{"a part writes nothing", "-only cpu,bytes", 2, ""},
		{"a part into a file", "-only cpu -o x.md", 1, "x.md"},
		{"a smoke run into the document's place", "-quick -o " + documentFile, 0, documentFile},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := parseFlags(strings.Fields(tt.args))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(o.only), tt.only; got != want {
				t.Errorf("got %d measures, want %d", got, want)
			}
			if got, want := o.out, tt.out; got != want {
				t.Errorf("got file %q, want %q", got, want)
			}
		})
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	for _, args := range []string{"-only nothing", "cpu", "-only cpu,"} {
		if _, err := parseFlags(strings.Fields(args)); err == nil {
			t.Errorf("%s: got no error", args)
		}
	}
}
