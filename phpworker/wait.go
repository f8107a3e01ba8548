package phpworker

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inSyscall returns the name of the system call that the process waits in, and what its descriptor leads to. Both are
// empty where that cannot be told.
func (p *process) inSyscall() (name, target string) {
	text, err := p.read("syscall", 4096)
	if err != nil { // it is root's where the process has changed its user, and CAP_SYS_PTRACE alone does not open it
		return p.sleepsIn()
	}
	c, ok := parseSyscall(text)
	if !ok {
		return "", ""
	}
	k, ok := callOf(c.number)
	if !ok {
		return fmt.Sprintf("system call %d", c.number), ""
	}
	switch k.descriptor {
	case inFirst:
		// A descriptor is an int: the upper half of its register means nothing.
		return k.name, p.target(int(int32(c.args[0])))
	case inPollSet:
		return k.name, p.target(p.firstPolled(c.args[0], c.args[1]))
	}
	return k.name, ""
}

// call is a system call and its arguments.
type call struct {
	number int
	args   [6]uint64
}

// callOf returns what is known of a system call.
func callOf(number int) (k syscallKind, ok bool) {
	if k, ok = calls[number]; !ok {
		k, ok = olderCalls[number]
	}
	return k, ok
}

// parseSyscall parses /proc/PID/syscall: "running", "-1 …" outside of a system call, or its number and arguments. The
// stack pointer and the program counter, which come last, are not needed.
func parseSyscall(text []byte) (c call, ok bool) {
	fields := strings.Fields(string(text))
	if len(fields) < 1+len(c.args) {
		return c, false
	}
	var err error
	if c.number, err = strconv.Atoi(fields[0]); err != nil || c.number < 0 {
		return c, false
	}
	for i := range c.args {
		if c.args[i], err = strconv.ParseUint(strings.TrimPrefix(fields[i+1], "0x"), 16, 64); err != nil {
			return c, false
		}
	}
	return c, true
}

// firstPolled returns the first descriptor of a struct pollfd; -1 if there is none. A stream of PHP polls one
// descriptor at a time, so the first is usually the only one.
func (p *process) firstPolled(set, count uint64) int {
	var b [4]byte
	if count == 0 || processMemory(p.pid).read(set, b[:]) != nil {
		return -1
	}
	return int(int32(native.Uint32(b[:])))
}

// target returns what a descriptor of the process leads to: an address, a path, or what the kernel calls it.
func (p *process) target(n int) (name string) {
	if n < 0 {
		return ""
	}
	// /proc names a socket by its inode alone. Its peer can only be had from a descriptor of it.
	_ = p.borrow(n, func(fd int) {
		if sa, err := unix.Getpeername(fd); err == nil {
			name = peerName(fd, sa)
		}
	})
	if name != "" {
		return name
	}
	name, _ = p.readlink("fd/" + strconv.Itoa(n))
	return name
}

// peerName is the address of a socket's peer for an operator. The peer of a connection that was accepted on a unix
// socket has none; the own one is named then.
func peerName(fd int, sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		return addrPort(a).String()
	case *unix.SockaddrUnix:
		if isNamed(a) {
			return "unix:" + a.Name
		}
		if own, ok := ownName(fd).(*unix.SockaddrUnix); ok && isNamed(own) {
			return clientOf + "unix:" + own.Name
		}
		return "a unix socket"
	}
	return ""
}

// isNamed reports whether a unix socket has a name. x/sys has an @ for the NUL before an abstract one, which may be
// empty.
func isNamed(a *unix.SockaddrUnix) bool { return a.Name != "" && a.Name != "@" }

// clientOf stands before the own address of a socket whose peer has none.
const clientOf = "a client of "

func ownName(fd int) unix.Sockaddr {
	sa, _ := unix.Getsockname(fd)
	return sa
}

// waits are kernel functions that a process may be seen to sleep in, and the system calls that lead there. They serve
// where /proc/PID/syscall, which is root's, cannot be read. /proc/PID/wchan takes fewer rights, see proc(5). The
// functions have different names in different versions of the kernel.
var waits = map[string]string{
	"hrtimer_nanosleep":        "nanosleep",
	"do_nanosleep":             "nanosleep",
	"do_poll":                  "poll",
	"do_sys_poll":              "poll",
	"poll_schedule_timeout":    "poll",
	"do_select":                "select",
	"ep_poll":                  "epoll_wait",
	"do_epoll_wait":            "epoll_wait",
	"futex_wait_queue":         "futex",
	"futex_do_wait":            "futex",
	"flock_lock_inode_wait":    "flock",
	"locks_lock_inode_wait":    "flock",
	"unix_stream_data_wait":    "read",
	"unix_stream_read_generic": "read",
	"sk_wait_data":             "read",
	"wait_woken":               "read",
	"pipe_read":                "read",
	"anon_pipe_read":           "read",
	"inet_csk_accept":          "accept",
	"unix_accept":              "accept",
	"do_wait":                  "wait4",
	"do_signal_stop":           "",
}

// sleepsIn returns the name of the system call that the process sleeps in, as far as the kernel's function tells it,
// and the connections that it may wait for.
func (p *process) sleepsIn() (name, target string) {
	text, err := p.read("wchan", 128)
	function, _, _ := strings.Cut(strings.TrimSpace(string(text)), ".") // a compiler's suffix, such as .constprop.0
	if err != nil || function == "" || function == "0" {
		return "", ""
	}
	name, ok := waits[function]
	if !ok {
		name = "the kernel's " + function
	}
	switch name {
	case "poll", "select", "read", "epoll_wait":
		target = p.connections()
	}
	return name, target
}

// maxTargets is how many connections are named.
const maxTargets = 3

// connections names what the process is connected to, but for what has connected to it.
func (p *process) connections() string {
	var names []string
	for n := range maxDescriptor {
		_ = p.borrow(n, func(fd int) {
			sa, err := unix.Getpeername(fd)
			if err != nil {
				return
			}
			if name := peerName(fd, sa); !strings.HasPrefix(name, clientOf) {
				names = append(names, name)
			}
		})
	}
	switch {
	case len(names) > maxTargets:
		return fmt.Sprintf("one of %s and %d more", strings.Join(names[:maxTargets], ", "), len(names)-maxTargets)
	case len(names) > 1:
		return "one of " + strings.Join(names, ", ")
	}
	return strings.Join(names, "")
}
