package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
)

func TestHealthIsWhatRequestsNeed(t *testing.T) {
	dir := t.TempDir()
	c, other := oneGate(t, "unix:"+dir+"/a.sock"), oneGate(t, "unix:"+dir+"/b.sock")
	s := newServer(c)
	if err := s.health(); err != nil {
		t.Errorf("a server that is well: got %v", err)
	}
	if got := s.local.Snapshot(); len(got) > 0 {
		t.Errorf("the watchdog left %v behind", got)
	}
	// A gate whose listener has failed is not well, until a reload has it listen again or removes it.
	for name, repair := range map[string]*config.Config{"the same config": c, "without that gate": other} {
		if err := s.apply(c); err != nil {
			t.Fatal(err)
		}
		failed := s.gates["default"]
		for !failed.gate.Listening() {
			time.Sleep(time.Millisecond)
		}
		stopped := errors.New("gate \"default\" stopped accepting")
		failed.stopped.Store(&stopped)
		if err := s.health(); !errors.Is(err, stopped) {
			t.Errorf("a gate that has stopped accepting: got %v, want %v", err, stopped)
		}
		_ = failed.gate.Shutdown(t.Context(), 0) // as a listener that fails is closed
		if err := s.apply(repair); err != nil {
			t.Fatal(err)
		}
		if err := s.health(); err != nil {
			t.Errorf("after a reload, %s: got %v", name, err)
		}
		if s.gates["default"].gate == failed.gate {
			t.Errorf("after a reload, %s: the gate that has stopped is still served", name)
		}
	}
}

func oneGate(t *testing.T, listen string) *config.Config {
	t.Helper()
	c, err := config.Default(listen, "unix:/no/such.sock")
	if err != nil {
		t.Fatal(err)
	}
	return c
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
