package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/supervisor"
)

func TestAUnitKeepsPausesInItsFolder(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", folder+":/elsewhere")
	u, file := &unit{name: "gate.service"}, filepath.Join(folder, "gate.service.paused")
	if got, err := u.LoadPauses(); err != nil || len(got) > 0 {
		t.Errorf("without a file: got %v, %v, want no pause", got, err)
	}
	until := time.Now().Add(time.Hour)
	if err := u.SavePauses(map[string]time.Time{"www": until}); err != nil {
		t.Fatal(err)
	}
	if got, err := u.LoadPauses(); err != nil || len(got) != 1 || !got["www"].Equal(until) {
		t.Errorf("got %v, %v, want www until %v", got, err, until)
	}
	for range 2 {
		if err := u.SavePauses(nil); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(folder + "/*"); len(left) > 0 {
		t.Errorf("got the files %v without a pause, want none", left)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := u.LoadPauses(); err == nil || len(got) > 0 {
		t.Errorf("a file that is cut short: got %v, %v, want an error", got, err)
	}
}

// TestProcessesOfAUnitMeet in its folder, where the last one that listens is found.
func TestProcessesOfAUnitMeet(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	u := &unit{name: "gate.service"}
	if nc, err := u.DialPredecessor(); nc != nil || err != nil {
		t.Errorf("without a process: got %v, %v, want none", nc, err)
	}
	first, err := u.ListenForSuccessor()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := u.ListenForSuccessor() // while the first still serves
	if err != nil {
		t.Fatal(err)
	}
	nc, err := u.DialPredecessor()
	if err != nil || nc == nil {
		t.Fatalf("got %v, %v, want a connection", nc, err)
	}
	defer nc.Close()
	if _, err := second.Accept(); err != nil {
		t.Error(err)
	}
	second.Close() // and its socket stays
	if nc, err := u.DialPredecessor(); nc != nil || err != nil {
		t.Errorf("after the end of the process: got %v, %v, want none", nc, err)
	}
}

func TestAUnitWithoutAFolder(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "")
	u := new(unit)
	_, dial := u.DialPredecessor()
	_, listen := u.ListenForSuccessor()
	_, load := u.LoadPauses()
	for _, err := range []error{dial, listen, load, u.SavePauses(nil)} {
		if !errors.Is(err, supervisor.ErrNoFolder) {
			t.Errorf("got %v, want %v", err, supervisor.ErrNoFolder)
		}
	}
}
