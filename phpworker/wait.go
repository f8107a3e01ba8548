package phpworker

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

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
