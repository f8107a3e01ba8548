package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestASocketOfSystemdIsFoundWithoutAConnection(t *testing.T) {
	const www, admin, line = "/run/fpm-gate/www.sock", "/run/fpm-gate/admin.sock", "0000000000000000: 00000002 00000000 "
	const table = "Num       RefCount Protocol Flags    Type St Inode Path\n" +
		line + "00010000 0001 01 11 " + www + "\n" +
		line + "00000000 0001 03 12 " + www + "\n" + // a connection
		line + "00010000 0001 01 13 " + admin + "\n" +
		line + "00000000 0001 03 14\n"
	for name, c := range map[string]struct {
		comm string
		fds  []string // of process 1
		path string
		want bool
	}{
		"systemd's":                  {"systemd\n", []string{"/dev/null", "socket:[11]"}, www, true},
		"the gate's own":             {"systemd\n", []string{"socket:[11]"}, admin, false},
		"a connection of systemd's":  {"systemd\n", []string{"socket:[12]"}, www, false},
		"none":                       {"systemd\n", []string{"socket:[11]"}, "/run/fpm-gate/shop.sock", false},
		"out of sight":               {"systemd\n", nil, www, false},
		"a gate that is process 1":   {"fpm-gate\n", []string{"socket:[11]"}, www, false},
		"a machine without anything": {"", nil, www, false},
	} {
		proc := t.TempDir()
		for file, text := range map[string]string{"1/comm": c.comm, "net/unix": table, "1/fd/none": ""} {
			if text == "" {
				continue
			}
			made(t, proc, file)
			if err := os.WriteFile(filepath.Join(proc, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(proc, "1/fd"), 0o755); err != nil {
			t.Fatal(err)
		}
		for i, to := range c.fds {
			if err := os.Symlink(to, filepath.Join(proc, "1/fd", string(rune('0'+i)))); err != nil {
				t.Fatal(err)
			}
		}
		if got := systemdListens(proc, c.path); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
