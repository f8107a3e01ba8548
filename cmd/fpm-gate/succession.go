package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/supervisor"
)

// The processes of a unit that follow each other meet in the unit's folder: one that ends offers its locks there to the
// next one, and it is remembered there which gates are paused.

var _ supervisor.Unit = (*unit)(nil)

// DialPredecessor connects to the process that served before this one and has not ended yet. It returns nil if there is
// none. Where a connection is refused, that process has ended and left its socket.
func (u *unit) DialPredecessor() (net.Conn, error) {
	path, err := u.runtimeFile("handover")
	if err != nil {
		return nil, err
	}
	nc, err := net.Dial("unix", path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	return nc, err
}

// ListenForSuccessor listens where the next process of the unit looks. A process before this one that still serves may
// listen there, too: it has handed its locks to this one.
func (u *unit) ListenForSuccessor() (net.Listener, error) {
	path, err := u.runtimeFile("handover")
	if err != nil {
		return nil, err
	}
	// A socket of an earlier process with this id would be in the way.
	own := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(own)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: own})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the path leads to the socket of the next process by then
	// The path has its mode from the start, and always leads to a process that listens, this one or the earlier one.
	if err = os.Chmod(own, 0o600); err == nil {
		err = os.Rename(own, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(own)
		return nil, err
	}
	return l, nil
}

// LoadPauses reads until when gates are paused. Without a file, none is.
func (u *unit) LoadPauses() (until map[string]time.Time, err error) {
	file, err := u.runtimeFile("paused")
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &until); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return until, nil
}

// SavePauses replaces the file as a whole. There is none while no gate is paused. The next process may read it at any
// moment, and never finds a part of it.
func (u *unit) SavePauses(until map[string]time.Time) error {
	file, err := u.runtimeFile("paused")
	if err != nil {
		return err
	}
	if len(until) == 0 {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(until)
	if err != nil {
		return err
	}
	next := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// systemd sets RUNTIME_DIRECTORY for RuntimeDirectory=, see systemd.exec(5): several folders are separated by colons.
func (u *unit) runtimeFile(kind string) (string, error) {
	folder, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	if folder == "" {
		return "", supervisor.ErrNoFolder
	}
	return filepath.Join(folder, u.name+"."+kind), nil
}
