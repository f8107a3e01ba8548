package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// sockets are the listening sockets that systemd has handed to the process, by their FileDescriptorName=. systemd
// listens on them before the process starts and after it has ended, so a restart refuses no connection.
type sockets map[string][]*os.File

// errNoSocket is returned when systemd has not passed what the config asks for. A socket comes with the start of the
// process or never; its unit may be started before the next.
var errNoSocket = errors.New("systemd has passed no socket of that name")

// takeSockets takes what systemd has passed. It is called once, and no child inherits them. LISTEN_FDS and
// LISTEN_FDNAMES name them, see sd_listen_fds(3). It takes the variables out of the environment.
func takeSockets() sockets {
	s := make(sockets)
	for _, f := range activation.Files(true) {
		s[f.Name()] = append(s[f.Name()], f)
	}
	return s
}

// listen returns a listener for each socket of that name: a unit may list several addresses. They are descriptors of
// their own. Closing them neither ends the socket nor removes it from its folder, and a reload may take it again.
func (s sockets) listen(name string) ([]net.Listener, error) {
	files := s[name]
	if len(files) == 0 {
		return nil, fmt.Errorf("%w; it has passed %s. Sockets come with the start of the service: start the socket unit,"+
			" check its FileDescriptorName=, then restart the service", errNoSocket, s.names())
	}
	var all []net.Listener
	for _, f := range files {
		l, err := listenOn(f)
		if err != nil { // a gate listens on all of its sockets or on none
			closeAll(all)
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// listenOn makes a listener of a passed socket.
func listenOn(f *os.File) (net.Listener, error) {
	var listening int
	err := control(f, func(fd int) (err error) {
		listening, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		return err
	})
	if err == nil && listening == 0 {
		err = errors.New("it does not listen: the socket unit needs ListenStream= and Accept=no")
	}
	if err != nil {
		return nil, fmt.Errorf("socket %q from systemd: %w", f.Name(), err)
	}
	// FileListener works on a copy of the descriptor. f stays open for the next reload.
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %q from systemd: %w", f.Name(), err)
	}
	return l, nil
}

// control asks about a socket. File.Fd would make it blocking, for the listener that accepts on it too.
func control(f *os.File, ask func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var asked error
	if err := raw.Control(func(fd uintptr) { asked = ask(int(fd)) }); err != nil {
		return err
	}
	return asked
}

// names are for an operator to read.
func (s sockets) names() string {
	if len(s) == 0 {
		return "none"
	}
	var all []string
	for name := range s {
		all = append(all, fmt.Sprintf("%q", name))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// at finds the name of the socket that systemd listens on at the path of a unix socket.
func (s sockets) at(path string) (name string, ok bool) {
	for name, files := range s {
		for _, f := range files {
			var addr unix.Sockaddr
			_ = control(f, func(fd int) (err error) {
				addr, err = unix.Getsockname(fd)
				return err
			})
			if u, isUnix := addr.(*unix.SockaddrUnix); isUnix && u.Name == path {
				return name, true
			}
		}
	}
	return "", false
}

// refuse closes what waits in the sockets to be accepted. A process that cannot serve does so before it ends: systemd
// keeps the sockets open, and web servers would wait there until another one can. A web server whose connection is
// closed tries its next server, or answers 502.
func (s sockets) refuse() {
	for _, files := range s {
		for _, f := range files {
			_ = control(f, func(fd int) error {
				_ = unix.SetNonblock(fd, true) // to stop at EAGAIN, when none waits any longer
				for {
					conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
					if err == nil {
						_ = unix.Close(conn)
					} else if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
						return err
					}
				}
			})
		}
	}
}

func closeAll(all []net.Listener) {
	for _, l := range all {
		_ = l.Close()
	}
}
