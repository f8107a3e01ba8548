package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/admin"
)

// A visitor chooses the path, from which a web server may make the script's name.
func TestWhyGivesNoOrdersToTheTerminal(t *testing.T) {
	const order, shown = "/x\x1b[2J", "/x\uFFFD[2J"
	answer, err := json.Marshal(admin.Why{
		Lock:   admin.Lock{Holder: admin.Request{Method: "GET", Path: order, Script: order}},
		Worker: &admin.Worker{Session: "active", File: order, Syscall: "read", Target: order},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := showWhy(&b, answer, false); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"request", "script", "session", "waits"} {
		if _, line, _ := strings.Cut("\n"+b.String(), "\n"+name); !strings.Contains(strings.SplitN(line, "\n", 2)[0], shown) {
			t.Errorf("%s: got %q, want a line with %q", name, b.String(), shown)
		}
	}
	if strings.Contains(b.String(), order) {
		t.Errorf("got %q, want no control characters", b.String())
	}
}
