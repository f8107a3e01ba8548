package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/fpm-gate/fpm-gate/config"
)

// listen opens a gate's listen address, or takes what systemd listens on.
func listen(g *config.Gate, passed sockets) (all []net.Listener, err error) {
	var l net.Listener
	switch g.Listen.Network {
	case "systemd":
		all, err = passed.listen(g.Listen.Address)
	case "unix":
		if name, ok := passed.at(g.Listen.Address); ok {
			err = fmt.Errorf(`systemd listens there for us; write listen = "systemd:%s", or disable the socket unit`, name)
			break
		}
		l, err = listenUnix(g)
	default:
		l, err = net.Listen(g.Listen.Network, g.Listen.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("gate %q: listen on %s: %w", g.Name, g.Listen, err)
	}
	if l != nil {
		all = []net.Listener{l}
	}
	return all, nil
}

// listenUnix makes a unix socket with the mode and owner that the config says. The socket is made under another
// name and put in its place when it is ready, so that a web server never finds one that it may not use, and
// never none where one of a process that has ended still lies.
func listenUnix(g *config.Gate) (net.Listener, error) {
	path := g.Listen.Address
	if err := checkPlace(path); err != nil {
		return nil, err
	}
	made := fmt.Sprintf("%s.%d", path, os.Getpid())
	if len(made) > maxSocketPath { // then without the detour
		made = path
	}
	l, err := makeUnix(g, made)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(made, path); err != nil {
		_ = l.Close()
		_ = os.Remove(made)
		return nil, err
	}
	id, err := os.Stat(path)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &unixListener{UnixListener: l, path: path, id: id}, nil
}

// maxSocketPath is the longest path that the address of a unix socket can hold.
const maxSocketPath = 107

// makeUnix makes a unix socket at a path, with the mode and owner that the config says. It replaces what was there.
func makeUnix(g *config.Gate, path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := setAccess(g, path); err != nil {
		_ = l.Close()
		_ = os.Remove(path)
		return nil, err
	}
	return l, nil
}

// errNoSocketFile is returned where a gate should make its socket, and there is a file that no gate has made.
var errNoSocketFile = errors.New("there is a file that is not a socket; remove it, or listen elsewhere")

// setAccess gives a gate's socket the mode and owner that the config says.
func setAccess(g *config.Gate, path string) error {
	uid, gid, err := owner(g)
	if err != nil {
		return err
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(path, g.ListenMode)
}

// checkPlace makes sure that nobody else needs what lies at path.
func checkPlace(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errNoSocketFile
	}
	nc, err := net.Dial("unix", path)
	if err == nil {
		_ = nc.Close()
		return errors.New("another process is listening there already; stop it, or listen elsewhere")
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil // of a process that has ended
	}
	return fmt.Errorf("there is a socket, and who owns it is not known: %w", err)
}

// owner finds the numbers of listen_owner and listen_group; -1 leaves them as they are.
func owner(g *config.Gate) (uid, gid int, err error) {
	uid, gid = -1, -1
	if name := g.ListenOwner; name != "" {
		if uid, err = lookup(name, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return 0, 0, fmt.Errorf("listen_owner: %w", err)
		}
	}
	if name := g.ListenGroup; name != "" {
		if gid, err = lookup(name, func(name string) (string, error) {
			gr, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return gr.Gid, nil
		}); err != nil {
			return 0, 0, fmt.Errorf("listen_group: %w", err)
		}
	}
	return uid, gid, nil
}

// lookup reads a number, or looks a name up.
func lookup(name string, find func(string) (string, error)) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	id, err := find(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

// unixListener removes its socket when it is closed, if it still is its socket: the next process may have put
// its own in the place by then.
type unixListener struct {
	*net.UnixListener
	path string
	id   fs.FileInfo
}

func (l *unixListener) Close() error {
	if now, err := os.Stat(l.path); err == nil && os.SameFile(now, l.id) {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}
