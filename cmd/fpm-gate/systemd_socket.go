package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// errSystemdListens is returned for a path of a unix socket on which systemd listens.
var errSystemdListens = errors.New(`systemd already listens there; set listen = "systemd:NAME", with the` +
	` FileDescriptorName= of the socket unit, or disable the socket unit`)

// systemdListens reports whether systemd listens on a unix socket, as far as this user can see, which takes root. It
// does not connect, as that would start the socket's service. proc is the folder /proc.
func systemdListens(proc, path string) bool {
	comm, err := os.ReadFile(filepath.Join(proc, "1/comm"))
	if err != nil || strings.TrimSpace(string(comm)) != "systemd" {
		return false
	}
	inodes := listening(proc, path)
	if inodes == nil {
		return false
	}
	files, _ := filepath.Glob(filepath.Join(proc, "1/fd/*"))
	return slices.ContainsFunc(files, func(file string) bool {
		to, err := os.Readlink(file)
		return err == nil && slices.Contains(inodes, to)
	})
}

// listening returns the sockets that listen at path, as links in /proc/PID/fd name them.
func listening(proc, path string) (inodes []string) {
	text, err := os.ReadFile(filepath.Join(proc, "net/unix"))
	if err != nil {
		return nil
	}
	const accepts = "00010000" // the flag of a socket that listens
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line) // Num RefCount Protocol Flags Type St Inode Path
		if len(words) == 8 && words[3] == accepts && words[7] == path {
			inodes = append(inodes, "socket:["+words[6]+"]")
		}
	}
	return inodes
}
