package phpworker

import "golang.org/x/sys/unix"

// calls are the system calls that a script may be seen to wait in, on all processors. One that is missing is shown by
// its number. A SIGSTOP interrupts a sleep or a poll, which the kernel then goes on with as restart_syscall, so a
// worker that was stopped to be looked at may show that.
var calls = map[int]syscallKind{
	unix.SYS_READ:            {"read", inFirst},
	unix.SYS_WRITE:           {"write", inFirst},
	unix.SYS_READV:           {"readv", inFirst},
	unix.SYS_WRITEV:          {"writev", inFirst},
	unix.SYS_PREAD64:         {"pread64", inFirst},
	unix.SYS_PWRITE64:        {"pwrite64", inFirst},
	unix.SYS_RECVFROM:        {"recvfrom", inFirst},
	unix.SYS_RECVMSG:         {"recvmsg", inFirst},
	unix.SYS_SENDTO:          {"sendto", inFirst},
	unix.SYS_SENDMSG:         {"sendmsg", inFirst},
	unix.SYS_ACCEPT:          {"accept", inFirst},
	unix.SYS_ACCEPT4:         {"accept4", inFirst},
	unix.SYS_CONNECT:         {"connect", inFirst},
	unix.SYS_FLOCK:           {"flock", inFirst},
	unix.SYS_FCNTL:           {"fcntl", inFirst},
	unix.SYS_FSYNC:           {"fsync", inFirst},
	unix.SYS_FDATASYNC:       {"fdatasync", inFirst},
	unix.SYS_PPOLL:           {"ppoll", inPollSet},
	unix.SYS_PSELECT6:        {"pselect6", inNone},
	unix.SYS_EPOLL_PWAIT:     {"epoll_pwait", inFirst},
	unix.SYS_NANOSLEEP:       {"nanosleep", inNone},
	unix.SYS_CLOCK_NANOSLEEP: {"clock_nanosleep", inNone},
	unix.SYS_FUTEX:           {"futex", inNone},
	unix.SYS_WAIT4:           {"wait4", inNone},
	unix.SYS_SEMTIMEDOP:      {"semtimedop", inNone},
	unix.SYS_RESTART_SYSCALL: {"restart_syscall", inNone},
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
