package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"syscall"

	"github.com/fpm-gate/fpm-gate/config"
)

// listen opens the listen address of a gate, or takes the sockets that systemd has passed for it.
func listen(g *config.Gate, passed sockets) (all []net.Listener, err error) {
	var l net.Listener
	switch g.Listen.Network {
	case "systemd": // a socket unit may list several addresses
		all, err = passed.listen(g.Listen.Address)
	case "unix":
		if name, ok := passed.at(g.Listen.Address); ok {
			err = fmt.Errorf(`systemd already listens there; set listen = "systemd:%s", or disable the socket unit`, name)
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

// listenUnix creates a unix socket with the mode and owner of the config. It creates the socket under another name and
// renames it when it is ready. So a web server never sees a socket without its final mode, and the path never
// disappears while the socket of an earlier process is replaced. The listener also knows which file is its own, by
// device and inode: see unixListener.
func listenUnix(g *config.Gate) (net.Listener, error) {
	path := g.Listen.Address
	if err := checkPlace(path); err != nil {
		return nil, err
	}
	made := fmt.Sprintf("%s.%d", path, os.Getpid())
	if len(made) > maxSocketPath { // no room for the other name
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

// maxSocketPath is the longest path that the address of a unix socket can hold. sun_path has 108 bytes with the NUL at
// its end, see unix(7).
const maxSocketPath = 107

// makeUnix creates a unix socket at a path, with the mode and owner of the config, and replaces what was there.
func makeUnix(g *config.Gate, path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // unixListener does that, if the path is still ours
	// The path is still another one, so no web server connects before the mode is right; only a path that leaves no room
	// for another one is connected to at once.
	if err := setAccess(g, path); err != nil {
		_ = l.Close()
		_ = os.Remove(path)
		return nil, err
	}
	return l, nil
}

// errNoSocketFile is returned when a file that is not a socket is at the path of a gate's socket.
var errNoSocketFile = errors.New("a file that is not a socket is in the way; remove it, or listen elsewhere")

// setAccess sets the mode and owner of a gate's socket as configured.
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

// checkPlace returns an error if what is at path must not be replaced.
func checkPlace(path string) error {
	info, err := os.Lstat(path) // a link is not followed: what it leads to is not ours to replace
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errNoSocketFile
	}
	// Only connecting shows whether a process listens. It counts as a connection there that ends without a request.
	nc, err := net.Dial("unix", path)
	if err == nil {
		_ = nc.Close()
		return errors.New("another process is listening there already; stop it, or listen elsewhere")
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil // the socket of a process that has ended
	}
	return fmt.Errorf("cannot tell which process owns the existing socket: %w", err)
}

// owner returns the ids of listen_owner and listen_group; -1 if one is not set, which leaves it unchanged. Names are
// looked up each time, as their ids may change. Without cgo, as the packages are built, only those of /etc/passwd and
// /etc/group are found.
func owner(g *config.Gate) (uid, gid int, err error) {
	uid, gid = -1, -1
	if name := g.ListenOwner; name != "" {
		if uid, err = users.lookup(name, func(name string) (string, error) {
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
		if gid, err = groups.lookup(name, func(name string) (string, error) {
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

// knownIDs are the ids of the names that were found so far. A confined process may open the /etc/passwd and /etc/group
// of its start only, and programs such as useradd put other files in their place: then the last id of a name counts.
type knownIDs struct {
	mu  sync.Mutex
	ids map[string]string
}

var users, groups knownIDs

// lookup returns the id that name is, or that find returns for it. A number is an id, even if it is a name as well.
func (k *knownIDs) lookup(name string, find func(string) (string, error)) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	id, err := find(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	if known := k.ids[name]; known != "" && errors.Is(err, fs.ErrPermission) {
		id, err = known, nil
	}
	if err != nil {
		return 0, err
	}
	if k.ids == nil {
		k.ids = make(map[string]string)
	}
	k.ids[name] = id
	return strconv.Atoi(id)
}

// unixListener removes its socket when it is closed, unless the next process has already put its own in that place.
type unixListener struct {
	*net.UnixListener
	path string
	id   fs.FileInfo
}

// Close removes the path first, so that no web server connects to a socket that no one accepts on.
func (l *unixListener) Close() error {
	if now, err := os.Stat(l.path); err == nil && os.SameFile(now, l.id) {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// isGone reports whether its socket was removed or replaced, so that no client can connect.
func (l *unixListener) isGone() bool {
	now, err := os.Stat(l.path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, l.id)
}
