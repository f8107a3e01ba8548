package demo

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestProgressIsLinesWhereThereIsNoTerminal(t *testing.T) {
	var out strings.Builder
	p := newProgress(&out, []int{1, 4})
	p.begin()
	p.step("two scripts, %v", &side{})
	p.busy(&side{}, 10)
	p.begin()
	p.step("reloads, %v", &side{gated: true})
	p.end()
	want := `nginx and PHP-FPM with and without fpm-gate: about 19 s in all; press Ctrl-C to stop
1/2 two scripts, without fpm-gate
2/2 reloads, with fpm-gate
`
	if got := out.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestProgressLineShowsTheWorkersOfTheStep(t *testing.T) {
	p := &progress{parts: 4, part: 2}
	with, without := &side{gated: true}, &side{}
	p.width = 80 // no line of its own for a step
	p.step("a burst")
	if got, want := p.line(7*time.Second), " 7 s  2/4 a burst"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.busy(with, 1)
	p.busy(without, 10)
	if got, want := p.line(12*time.Second), "12 s  2/4 a burst  ■■■■■■■■■■  ■·········"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.step("the next")
	if got, want := p.line(13*time.Second), "13 s  2/4 the next"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProgressStaysOneLine(t *testing.T) {
	for _, width := range []int{0, 1, 5, 80} {
		if got := fit(strings.Repeat("■", 50), width); utf8.RuneCountInString(got) > width {
			t.Errorf("%d columns: got %q", width, got)
		}
	}
	if got, want := fit("short", 80), "short"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
