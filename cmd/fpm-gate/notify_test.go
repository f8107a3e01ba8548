package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/config"
)

func TestHealthIsWhatRequestsNeed(t *testing.T) {
	c, err := config.Default("127.0.0.1:1", "127.0.0.1:2")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(c)
	if err := s.health(); err != nil {
		t.Errorf("a server that is well: got %v", err)
	}
	if got := s.local.Snapshot(); len(got) > 0 {
		t.Errorf("the watchdog left %v behind", got)
	}
	stopped := errors.New("gate \"www\" does not accept any more")
	s.stopped.Store(&stopped)
	if err := s.health(); !errors.Is(err, stopped) {
		t.Errorf("a gate that does not accept: got %v, want %v", err, stopped)
	}
}

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
