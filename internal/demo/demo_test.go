package demo

import (
	"slices"
	"strings"
	"testing"
)

func TestParseParts(t *testing.T) {
	for _, c := range []struct {
		name, list string
		want       []int
		wantErr    string
	}{
		{"nothing means all", "", []int{1, 2, 3, 4, 5, 6}, ""},
		{"one", "3", []int{3}, ""},
		{"several, in the order of the story and each once", "3, 1,3", []int{1, 3}, ""},
		{"too high", "1,99", nil, `got "99"`},
		{"zero", "0", nil, `got "0"`},
		{"no number", "two", nil, `got "two"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseParts(c.list)
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("got %v and error %v, want an error with %s", got, err, c.wantErr)
				}
				return
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v and error %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestSocketsFitIntoTheFolder(t *testing.T) {
	if got := shortFolder("/tmp"); got != "/tmp" {
		t.Errorf("got %s for /tmp", got)
	}
	if got := shortFolder("/run/user/1000/tmp"); got != "/run/user/1000/tmp" {
		t.Errorf("got %s for a folder of the user's", got)
	}
	if got := shortFolder("/" + strings.Repeat("long/", 20)); got != "/tmp" {
		t.Errorf("got %s for a long folder", got)
	}
}
