package main

import (
	"strings"
	"testing"
)

func TestEachLineHasThePriority(t *testing.T) {
	var got strings.Builder
	w := withPriority(&got, 3)
	const text = "Error: wrong\n  on line 3\n"
	if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
		t.Errorf("got %d (%v), want %d", n, err, len(text))
	}
	if want := "<3>Error: wrong\n<3>  on line 3\n"; got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}
