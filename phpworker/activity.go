package phpworker

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// caughtSignals returns the set of signals that a process has handlers for, from its /proc/PID/status. The mask is
// hexadecimal, and signal n is its bit n-1, as proc(5) has it.
func caughtSignals(status []byte) (uint64, error) {
	const field = "SigCgt:"
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte(field)); ok {
			return strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		}
	}
	return 0, errNoSignals
}

// Activity reads what the process does.
func (w *worker) Activity() (a Activity, err error) {
	err = w.with(func() (err error) {
		a, err = w.activity()
		return err
	})
	return a, err
}

func (w *worker) activity() (Activity, error) {
	a := Activity{PID: w.process.pid, Version: string(w.module.version)}
	s, err := w.process.stat()
	if err != nil {
		return a, err
	}
	a.State, a.CPU = stateName(s.state), time.Duration(s.ticks)*clockTick
	if a.Program, err = w.process.program(); err != nil {
		return a, err
	}
	a.Syscall, a.Target = w.process.inSyscall()
	a.Session, err = w.session() // last: it looks whether all this was about this connection
	return a, err
}

// clockTick is the unit of times in /proc: USER_HZ is 100 on all processors that this runs on.
const clockTick = 10 * time.Millisecond

// stateName returns a word for an operator. proc(5) lists the letters. Others, such as I for an idle kernel thread, are
// not expected of a worker.
func stateName(state byte) string {
	switch state {
	case 'R':
		return "running"
	case 'S':
		return "sleeping"
	case 'D':
		return "waiting for a disk"
	case 'T', 't':
		return "stopped"
	case 'Z', 'X':
		return "ended"
	}
	return "in state " + string(rune(state))
}

// call is a system call and its arguments.
type call struct {
	number int
	args   [6]uint64
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
	k, ok := calls[c.number]
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

// syscallKind is what is known of a system call.
type syscallKind struct {
	name       string
	descriptor place
}

// place is where a system call has the descriptor that it works on.
type place int

const (
	inNone place = iota
	inFirst
	inPollSet // the first of an array of struct pollfd
)

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
