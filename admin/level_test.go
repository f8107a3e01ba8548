package admin

import (
	"strings"
	"testing"
)

func TestTheLogLevelCanBeChanged(t *testing.T) {
	s := newStand(t)
	c := s.listen("unix")
	for _, r := range []struct {
		level string
		code  int
		then  string
	}{
		{"debug", 200, "debug"}, {"trace\n", 200, "trace"}, {"loud", 400, "trace"}, {"", 400, "trace"}, {"off", 400, "trace"},
		{strings.Repeat("x", 100), 400, "trace"}, {"WARN", 200, "warn"}, {"info", 200, "info"},
	} {
		if code, text := c.ask("PUT", "/log-level", r.level); code != r.code {
			t.Errorf("PUT %q: got %d and %q, want %d", r.level, code, text, r.code)
		}
		if _, text := c.ask("GET", "/log-level", ""); text != r.then+"\n" {
			t.Errorf("after PUT %q: got %q, want %q", r.level, text, r.then)
		}
	}
}
