package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
)

func TestPausesOutliveTheProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gate.service.paused")
	log := newLogs(&config.Config{Log: config.Log{Level: "off", Format: config.FormatText}})
	next := func() *pauses {
		p := new(pauses)
		p.load(file, log)
		return p
	}
	first := next()
	first.note("www", time.Now().Add(time.Hour))
	first.note("shop", time.Now().Add(-time.Second))
	second := next()
	if second.left("www") < 50*time.Minute || second.left("shop") != 0 || second.left("other") != 0 {
		t.Errorf("got %v, %v and %v, want almost an hour and nothing",
			second.left("www"), second.left("shop"), second.left("other"))
	}
	first.handOver(nil)
	first.note("www", time.Time{})
	if next().left("www") == 0 {
		t.Error("a process that has handed over has changed the file")
	}
	second.note("www", time.Time{})
	second.note("shop", time.Time{})
	if _, err := os.Stat(file); err == nil {
		t.Error("the file is there without a pause")
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken := next(); broken.left("www") != 0 {
		t.Error("a file that cannot be read pauses a gate")
	}
}
