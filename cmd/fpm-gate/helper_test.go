package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestHelperReplacesNothingButItsSocket wants whatever else is at the path to stay as it is.
func TestHelperReplacesNothingButItsSocket(t *testing.T) {
	for name, c := range map[string]struct {
		make   func(path string) error
		listen bool
	}{
		"nothing":  {func(string) error { return nil }, true},
		"a file":   {func(path string) error { return os.WriteFile(path, []byte("text"), 0o600) }, false},
		"a folder": {func(path string) error { return os.Mkdir(path, 0o700) }, false},
		"a link":   {func(path string) error { return os.Symlink("nowhere", path) }, false},
		"a socket that was left": {func(path string) error {
			l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			return l.Close()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "helper.sock")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			l, err := listenHelper(path)
			if c.listen {
				if err != nil {
					t.Fatal(err)
				}
				_ = l.Close()
				return
			}
			if !errors.Is(err, errNoSocketFile) {
				t.Errorf("got %v, want that no socket is in the way", err)
			}
			if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
				t.Errorf("what was at the path is gone: %v", err)
			}
			if err == nil {
				_ = l.Close()
			}
		})
	}
}
